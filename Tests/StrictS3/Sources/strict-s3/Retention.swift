import Foundation

/// The Object Lock of one version.
struct Retention: Sendable, Equatable {
    enum Mode: String, Sendable {
        case governance = "GOVERNANCE"
        case compliance = "COMPLIANCE"
    }

    var mode: Mode
    var until: Date

    init(mode: Mode, until: Date) {
        self.mode = mode
        self.until = until
    }

    /// The lock headers of a write; nil when there are none.
    init?(_ request: S3Request, now: Date) throws {
        let mode = request.header("x-amz-object-lock-mode")
        let until = request.header("x-amz-object-lock-retain-until-date")
        if request.header("x-amz-object-lock-legal-hold") != nil {
            throw S3Error.notImplemented("legal holds are not served here")
        }
        if mode == nil, until == nil { return nil }
        guard let mode, let until else {
            throw S3Error.invalidArgument(
                "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied")
        }
        try self.init(mode: mode, until: until, now: now)
    }

    init(mode: String, until: String, now: Date) throws {
        guard let known = Mode(rawValue: mode) else { throw S3Error.invalidArgument("Unknown wormMode directive.") }
        guard let date = Timestamp.parseISO(until) else {
            throw S3Error.invalidArgument("The retain until date must be provided in ISO 8601 format")
        }
        guard date > now else { throw S3Error.invalidArgument("The retain until date must be in the future!") }
        self.init(mode: known, until: date)
    }

    func forbidsDeletion(now: Date, bypass: Bool) -> Bool {
        until > now && (mode == .compliance || !bypass)
    }

    /// Whether `new` may take this lock's place: COMPLIANCE only grows, GOVERNANCE shrinks with a bypass.
    func mayBecome(_ new: Retention?, now: Date, bypass: Bool) -> Bool {
        if until <= now { return true }
        let grows = new.map { $0.until >= until } ?? false
        switch mode {
        case .compliance: return grows && new?.mode == .compliance
        case .governance: return grows || bypass
        }
    }

    static let refusal = S3Error.accessDenied("Access Denied because object protected by object lock.")

    var headers: [(String, String)] {
        [
            ("x-amz-object-lock-mode", mode.rawValue),
            ("x-amz-object-lock-retain-until-date", Timestamp.iso(until)),
        ]
    }
}
