import BackupBase

/// Keys for signing requests, and where they came from.
struct Credentials: Sendable, Equatable {
    var accessKey: String
    var secretKey: SecretText
    var sessionToken: SecretText?
    /// Nanoseconds since 1970; nil when they do not expire.
    var expires: Int64?
    /// For people: "environment", "profile 'backup' (credential_process)" and so on; never a secret.
    var source: String
}

extension Credentials {
    /// Whether every byte is printable ASCII and no space. Key and token travel in
    /// headers: a line end in one of them, from a file or a server, must not become
    /// a header of its own.
    static func isHeaderSafe(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { (0x21...0x7e).contains($0) }
    }
}
