import BackupBase
import Glibc

/// Why a volume cannot be had at one moment. Neither a read error of the source
/// nor an error of the repository: nothing was stored yet.
public struct CaptureError: Error, Sendable, CustomStringConvertible {
    /// Lower case, without a full stop.
    public var reason: String
    /// What would work: a sentence.
    public var hint: String?
    /// Another run captures the same volume at this moment.
    public var isBusy = false
    /// Somebody writes who cannot be held: what needs a quiet volume is not worth trying.
    public var isRestless = false

    public init(_ reason: String, hint: String? = nil, isBusy: Bool = false, isRestless: Bool = false) {
        self.reason = reason
        self.hint = hint
        self.isBusy = isBusy
        self.isRestless = isRestless
    }

    init(_ reason: String, _ cause: SystemError, hint: String? = nil) {
        self.init("\(reason): cannot \(cause.operation): \(explain(cause.errno))", hint: hint)
    }

    init(_ reason: String, _ cause: SourceError) {
        self.init("\(reason): \(cause)")
    }

    public var description: String { reason }
}
