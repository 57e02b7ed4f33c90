import FoundationEssentials

/// The file with keys that the user named, for example a systemd credential:
/// JSON as the AWS CLI prints it (`credential_process` form, or within
/// "Credentials" or "AccessKey"), or a section of an INI file.
struct KeyFile: Sendable {
    var path: String
    /// The INI section; one that the user chose for this store, not AWS_PROFILE's.
    var section: String

    func credentials() throws -> Credentials {
        let bytes = try CredentialFile.require(path, what: "the key file")
        let isJSON = bytes.first { $0 != 0x20 && !(0x09...0x0d).contains($0) } == UInt8(ascii: "{")
        let fields = try isJSON ? fields(json: bytes) : fields(ini: bytes)
        return try fields.credentials(source: "key file '\(path)'", origin: "the key file '\(path)'")
    }

    private struct Document: Decodable {
        var Credentials: KeyFields?
        var AccessKey: KeyFields?
    }

    private func fields(json: [UInt8]) throws -> KeyFields {
        if let outer = try? JSONDecoder().decode(Document.self, from: Data(json)),
            let inner = outer.Credentials ?? outer.AccessKey
        {
            return inner
        }
        guard let fields = KeyFields(json: json) else { throw unusable("is no JSON object with AccessKeyId and SecretAccessKey") }
        return fields
    }

    private func fields(ini: [UInt8]) throws -> KeyFields {
        let document: INIDocument
        do {
            document = try INIDocument(ini)
        } catch let error as INIDocument.Malformed {
            throw unusable("cannot be used: its line \(error.line) \(error.what)")
        }
        guard let values = document.sections[section] else { throw unusable("has no section [\(section)]") }
        return KeyFields(Profile(section, values))
    }

    private func unusable(_ what: String) -> CredentialError {
        CredentialError(
            "the key file '\(path)' \(what)",
            hint: "Write it as `[default]` with aws_access_key_id and aws_secret_access_key, or as JSON.")
    }
}

extension KeyFields {
    /// The static keys of a profile.
    init(_ profile: Profile) {
        accessKey = profile.text("aws_access_key_id")
        secretKey = profile.secret("aws_secret_access_key")
        token = profile.secret("aws_session_token")
    }
}
