/// Why there are no keys. The message is lower case, without a full stop, and
/// names the file, variable or service concerned; the hint is a sentence and
/// says what to do. Neither ever holds a secret, nor what a program or a
/// server said without being looked through (`SecurityTokenService`).
struct CredentialError: Error, Sendable, CustomStringConvertible {
    var message: String
    var hint: String

    init(_ message: String, hint: String) {
        self.message = message
        self.hint = hint
    }

    var description: String { message }
}
