import BackupBase

/// What `doctor` tells of a store. Never a key's value.
extension S3Store {
    /// Where the keys come from, and when they expire (nanoseconds since 1970).
    public func keySource() async throws -> (source: String, expires: Int64?) {
        do {
            let keys = try await client.currentCredentials()
            return (keys.source, keys.expires)
        } catch let error as CredentialError {
            throw StoreError(.credentials, "use", location, error.message, hint: error.hint)
        }
    }

    public var region: String { client.region }

    /// "https://bucket.s3.eu-west-1.amazonaws.com"
    public var address: String {
        let address = S3Address(place, region: client.region, host: nil)
        return address.base + address.path(nil)
    }

    public var usesTLS: Bool { address.hasPrefix("https://") }
}
