import BackupBase

/// Keys in the variables that every AWS tool knows.
struct EnvironmentKeys: Sendable {
    var settings: CredentialSettings

    /// Nil when neither part of a pair is set.
    func credentials() throws -> Credentials? {
        var fields = KeyFields()
        let (key, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        fields.accessKey = settings.variable(key)
        fields.secretKey = settings.variable(secret).map(SecretText.init)
        if fields.accessKey == nil && fields.secretKey == nil { return nil }
        guard fields.accessKey != nil else { throw half(secret, without: key) }
        guard fields.secretKey != nil else { throw half(key, without: secret) }
        fields.token = settings.variable("AWS_SESSION_TOKEN").map(SecretText.init)
        // `aws configure export-credentials --format env` writes it.
        fields.expiration = settings.variable("AWS_CREDENTIAL_EXPIRATION").map(KeyFields.Expiration.text)
        return try fields.credentials(source: "environment", origin: "the environment (AWS_ACCESS_KEY_ID and the others)")
    }

    private func half(_ one: String, without other: String) -> CredentialError {
        CredentialError("\(one) is set and \(other) is not", hint: "Set both, or neither to use another source of keys.")
    }
}
