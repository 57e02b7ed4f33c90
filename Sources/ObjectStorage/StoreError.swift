/// What a store failed at. Never the source's fault.
public struct StoreError: Error, Sendable, CustomStringConvertible {
    public enum Kind: String, Sendable {
        case notFound = "not found"
        case exists = "exists already"
        case full = "no space left"
        /// The keys are not allowed to do this.
        case denied = "permission denied"
        /// The keys themselves are missing, wrong or expired.
        case credentials = "no valid keys"
        case tooLarge = "larger than allowed"
        /// An object lock forbids it.
        case locked = "locked against change"
        /// There is no such bucket or directory.
        case noStore = "no such store"
        /// Nobody answers at this address.
        case unreachable = "not reachable"
        /// The URL or its options are wrong.
        case usage = "wrong address"
        case unsupported = "not supported"
        case failed = "failed"
    }
    public var kind: Kind
    public var operation: String
    public var name: String
    public var detail: String
    /// What to do, as a sentence.
    public var hint: String?

    public init(_ kind: Kind, _ operation: String, _ name: String, _ detail: String = "", hint: String? = nil) {
        self.kind = kind
        self.operation = operation
        self.name = name
        self.detail = detail
        self.hint = hint
    }

    public var description: String {
        "cannot \(operation) \(name): \(detail.isEmpty ? kind.rawValue : detail)"
    }
}
