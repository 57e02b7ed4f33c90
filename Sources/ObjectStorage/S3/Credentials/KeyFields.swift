import BackupBase
import FoundationEssentials

/// The fields that everything which hands out keys calls by the same names:
/// container and metadata services, STS, `credential_process`, key files. The
/// token is `Token` where a service answers and `SessionToken` elsewhere.
struct KeyFields: Sendable {
    var version: Int?
    /// "Success", or what went wrong inside the metadata service.
    var code: String?
    var accessKey: String?
    var secretKey: SecretText?
    var token: SecretText?
    var expiration: Expiration?

    enum Expiration: Sendable {
        case text(String)
        case seconds(Double)
    }

    /// - Parameters:
    ///   - source: where the keys are from, for `Credentials.source`
    ///   - origin: what held the fields, for errors: "the answer of …"
    func credentials(source: String, origin: String) throws -> Credentials {
        guard let accessKey, !accessKey.isEmpty else { throw Self.unusable("\(origin) holds no access key id") }
        guard let secretKey, !secretKey.isEmpty else { throw Self.unusable("\(origin) holds no secret access key") }
        guard Credentials.isHeaderSafe(accessKey) else {
            throw Self.unusable("the access key id of \(origin) holds characters that no key has")
        }
        let token = token.flatMap { $0.isEmpty ? nil : $0 }
        if let token, !Credentials.isHeaderSafe(token.reveal()) {
            throw Self.unusable("the session token of \(origin) holds characters that no token has")
        }
        return Credentials(
            accessKey: accessKey, secretKey: secretKey, sessionToken: token, expires: try expires(origin), source: source)
    }

    private func expires(_ origin: String) throws -> Int64? {
        switch expiration {
        case nil: return nil
        case .seconds(let seconds): return CredentialTime.nanoseconds(seconds: seconds)
        case .text(let text):
            guard let time = CredentialTime.parse(text) else {
                throw Self.unusable("the expiration of \(origin) is no time as RFC 3339 writes it")
            }
            return time
        }
    }

    private static func unusable(_ message: String) -> CredentialError {
        CredentialError(message, hint: "Compare it with what the AWS documentation says it holds.")
    }
}

extension KeyFields: Decodable {
    private enum CodingKeys: String, CodingKey {
        case version = "Version"
        case code = "Code"
        case accessKey = "AccessKeyId"
        case secretKey = "SecretAccessKey"
        case token = "Token"
        case sessionToken = "SessionToken"
        case expiration = "Expiration"
    }

    init(from decoder: any Decoder) throws {
        let fields = try decoder.container(keyedBy: CodingKeys.self)
        version = try fields.decodeIfPresent(Int.self, forKey: .version)
        code = try fields.decodeIfPresent(String.self, forKey: .code)
        accessKey = try fields.decodeIfPresent(String.self, forKey: .accessKey)
        secretKey = try fields.decodeIfPresent(String.self, forKey: .secretKey).map(SecretText.init)
        let session = try fields.decodeIfPresent(String.self, forKey: .sessionToken)
        token = try (session ?? fields.decodeIfPresent(String.self, forKey: .token)).map(SecretText.init)
        if let seconds = try? fields.decodeIfPresent(Double.self, forKey: .expiration) {
            expiration = .seconds(seconds)
        } else {
            expiration = try fields.decodeIfPresent(String.self, forKey: .expiration).map(Expiration.text)
        }
    }

    /// Nil when the bytes are no JSON object of this kind. The decoder's own error
    /// may quote what it read, so it goes no further.
    init?(json: [UInt8]) {
        guard let fields = try? JSONDecoder().decode(KeyFields.self, from: Data(json)) else { return nil }
        self = fields
    }
}
