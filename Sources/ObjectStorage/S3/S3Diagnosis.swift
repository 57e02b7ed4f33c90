import BackupBase

/// Says what a failure means to whoever set the repository up: one sentence,
/// and what to do about it.
struct S3Diagnosis {
    let place: S3Place
    let region: String
    let skew: Int64

    private var server: String { place.endpoint ?? "AWS" }

    func error(_ error: any Error, _ call: S3Call) -> StoreError {
        switch error {
        case let failure as S3Failure: failed(failure, call)
        case let error as TransportError: unanswered(error, call)
        case let error as CredentialError:
            StoreError(.credentials, call.operation, call.name, error.message, hint: error.hint)
        default: StoreError(.failed, call.operation, call.name, "\(error)")
        }
    }

    // MARK: - No answer

    private func unanswered(_ error: TransportError, _ call: S3Call) -> StoreError {
        let (kind, detail, hint): (StoreError.Kind, String, String?) =
            switch error.kind {
            case .resolve:
                (.unreachable, "the name of the server \(server) has no address", "Check the endpoint in the URL, and the network.")
            case .connect:
                (.unreachable, "nobody answers at \(server) (\(error.detail))",
                    "Check the endpoint and its port, the network and the proxy variables.")
            case .tls:
                (.unreachable, "the connection to \(server) is not safe (\(error.detail))",
                    "Give the authority of its certificate by ?ca-file=FILE; an http:// endpoint does without TLS.")
            case .stalled:
                (.unreachable, "\(server) does not answer in time", "Check the endpoint and the network; ?timeout= and ?retry-for= say how long to wait.")
            case .broken:
                (.unreachable, "\(server) keeps breaking the connection off (\(error.detail))",
                    "Does the endpoint speak S3 there, http or https?")
            case .tooLarge: (.tooLarge, error.detail, nil)
            case .unusable: (.usage, "the endpoint \(server) cannot be used (\(error.detail))", "Give https://HOST[:PORT].")
            }
        return StoreError(kind, call.operation, call.name, detail, hint: hint)
    }

    // MARK: - A refusal

    private func failed(_ failure: S3Failure, _ call: S3Call) -> StoreError {
        let (kind, detail, hint) = meaning(of: failure, call)
        return StoreError(kind, call.operation, call.name, detail, hint: hint)
    }

    private func meaning(of failure: S3Failure, _ call: S3Call) -> (StoreError.Kind, String, String?) {
        let text = failure.message.isEmpty ? failure.code : "\(failure.code): \(failure.message)"
        switch failure.code {
        case "NoSuchBucket":
            return (.noStore, "there is no bucket '\(place.bucket)' at \(server)", "Make the bucket first, or check its name and the endpoint.")
        case "InvalidAccessKeyId":
            return (.credentials, "\(server) does not know the access key", "Check the keys; 'bgbackup doctor' shows where they come from.")
        case "SignatureDoesNotMatch":
            return (.credentials, "the secret key is not that of the access key (\(failure.code))",
                "Check the keys; 'bgbackup doctor' shows where they come from.")
        case _ where failure.isExpiry:
            return (.credentials, "the keys have expired (\(failure.code))", "Fetch new ones; 'bgbackup doctor' shows where they come from.")
        case "RequestTimeTooSkewed":
            return (.failed, "the clock of this machine is \(formatDuration(abs(Double(skew) / 1e9))) off that of the store",
                "Set the clock: 'timedatectl' shows whether it is synchronized.")
        case "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "Redirect":
            return (.usage, "the bucket is not in region '\(region)'\(failure.region.map { " but in '\($0)'" } ?? "")",
                "Give the bucket's region by ?region= or AWS_REGION.")
        case "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "EntityTooLarge":
            return (failure.code == "EntityTooLarge" ? .tooLarge : .full, text, nil)
        case "InvalidObjectState":
            return (.failed, "it is in an archive class and has to be thawed first",
                "Restore it in the store (aws s3api restore-object), then try again.")
        default: return general(failure, call, text)
        }
    }

    private func general(_ failure: S3Failure, _ call: S3Call, _ text: String) -> (StoreError.Kind, String, String?) {
        switch failure.status {
        case 403: (.denied, "the store does not allow it (\(text))", "See which rights it takes: 'bgbackup repo iam-policy --role ROLE'.")
        case 404: (.notFound, "", nil)
        case 409 where failure.code == "BucketAlreadyExists" || call.headers.contains { $0.name == "if-none-match" }: (.exists, "", nil)
        case 412: (.exists, "", nil)
        case 416: (.failed, S3Store.beyondEnd, nil)
        case 501: (.unsupported, text, nil)
        case 507: (.full, text, nil)
        case 301, 307, 308: (.usage, "\(server) redirects to another place", "Give the endpoint it redirects to.")
        default: (.failed, "the store answers \(failure.status) (\(text))", failure.status >= 500 ? "The store is in trouble: try again later." : nil)
        }
    }
}
