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

    /// What a failure is, in words, and what to do.
    private struct Meaning {
        let kind: StoreError.Kind
        let detail: String
        let hint: String?

        init(_ kind: StoreError.Kind, _ detail: String, _ hint: String? = nil) {
            self.kind = kind
            self.detail = detail
            self.hint = hint
        }
    }

    private func storeError(_ meaning: Meaning, _ call: S3Call) -> StoreError {
        StoreError(meaning.kind, call.operation, call.name, meaning.detail, hint: meaning.hint)
    }

    // MARK: - No answer

    private func unanswered(_ error: TransportError, _ call: S3Call) -> StoreError {
        storeError(meaning(of: error), call)
    }

    private func meaning(of error: TransportError) -> Meaning {
        let why = error.detail
        return switch error.kind {
        case .resolve:
            Meaning(
                .unreachable, "the name of the server \(server) has no address",
                "Check the endpoint in the URL, and the network.")
        case .connect:
            Meaning(
                .unreachable, "nobody answers at \(server) (\(why))",
                "Check the endpoint and its port, the network and the proxy variables.")
        case .tls:
            Meaning(
                .unreachable, "the connection to \(server) is not safe (\(why))",
                "Give the authority of its certificate by ?ca-file=FILE; an http:// endpoint does without TLS.")
        case .stalled:
            Meaning(
                .unreachable, "\(server) does not answer in time",
                "Check the endpoint and the network; ?timeout= and ?retry-for= say how long to wait.")
        case .broken:
            Meaning(
                .unreachable, "\(server) keeps breaking the connection off (\(why))",
                "Does the endpoint speak S3 there, http or https?")
        case .tooLarge: Meaning(.tooLarge, why)
        case .unusable: Meaning(.usage, "the endpoint \(server) cannot be used (\(why))", "Give https://HOST[:PORT].")
        }
    }

    // MARK: - A refusal

    private func failed(_ failure: S3Failure, _ call: S3Call) -> StoreError {
        let text = failure.message.isEmpty ? failure.code : "\(failure.code): \(failure.message)"
        return storeError(keys(failure) ?? place(failure) ?? object(failure, text) ?? status(failure, call, text), call)
    }

    /// What is wrong with the keys or the clock.
    private func keys(_ failure: S3Failure) -> Meaning? {
        let origin = "'bgbackup doctor' shows where they come from."
        switch failure.code {
        case "InvalidAccessKeyId":
            return Meaning(.credentials, "\(server) does not know the access key", "Check the keys; \(origin)")
        case "SignatureDoesNotMatch":
            return Meaning(
                .credentials, "the secret key is not that of the access key (\(failure.code))", "Check the keys; \(origin)")
        case _ where failure.isExpiry:
            return Meaning(.credentials, "the keys have expired (\(failure.code))", "Fetch new ones; \(origin)")
        case "RequestTimeTooSkewed":
            return Meaning(
                .failed, "the clock of this machine is \(formatDuration(abs(Double(skew) / 1e9))) off that of the store",
                "Set the clock: 'timedatectl' shows whether it is synchronized.")
        default: return nil
        }
    }

    /// What is wrong with the bucket's name or place.
    private func place(_ failure: S3Failure) -> Meaning? {
        switch failure.code {
        case "NoSuchBucket":
            return Meaning(
                .noStore, "there is no bucket '\(place.bucket)' at \(server)",
                "Make the bucket first, or check its name and the endpoint.")
        case "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "Redirect":
            let other = failure.region.map { " but in '\($0)'" } ?? ""
            return Meaning(
                .usage, "the bucket is not in region '\(region)'\(other)",
                "Give the bucket's region by ?region= or AWS_REGION.")
        default: return nil
        }
    }

    private func object(_ failure: S3Failure, _ text: String) -> Meaning? {
        switch failure.code {
        case "QuotaExceeded", "XMinioStorageFull", "InsufficientStorage": Meaning(.full, text)
        case "EntityTooLarge": Meaning(.tooLarge, text)
        case "InvalidObjectState":
            Meaning(
                .failed, "it is in an archive class and has to be thawed first",
                "Restore it in the store (aws s3api restore-object), then try again.")
        default: nil
        }
    }

    private func status(_ failure: S3Failure, _ call: S3Call, _ text: String) -> Meaning {
        let isConditional = call.headers.contains { $0.name == "if-none-match" }
        return switch failure.status {
        case 403:
            Meaning(
                .denied, "the store does not allow it (\(text))",
                "See which rights it takes: 'bgbackup repo iam-policy --role ROLE'.")
        case 404: Meaning(.notFound, "")
        case 409 where isConditional, 412: Meaning(.exists, "")
        case 416: Meaning(.failed, S3Store.beyondEnd)
        case 501: Meaning(.unsupported, text)
        case 507: Meaning(.full, text)
        case 301, 307, 308:
            Meaning(.usage, "\(server) redirects to another place", "Give the endpoint it redirects to.")
        case 500...:
            Meaning(
                .failed, "the store answers \(failure.status) (\(text))", "The store is in trouble: try again later.")
        default: Meaning(.failed, "the store answers \(failure.status) (\(text))")
        }
    }
}
