import BackupBase

/// What one run did, as the node remembers it. Nothing in it is secret: a place stands without
/// the user, password and options of its URL. Moments are RFC 3339 in UTC, durations seconds,
/// sizes bytes.
public struct RunRecord: Codable, Sendable, Equatable {
    public enum Kind: String, Codable, Sendable, CaseIterable { case backup, watch, forget, prune, check, drill, copy }

    public enum Outcome: String, Codable, Sendable {
        case running, success
        /// Done, with something worth a look: files that could not be read, or locks that keep what should go.
        case warning
        case failure
        /// Another run had the lease or the lock: nothing was done, and nothing is wrong.
        case busy
        /// Ended by a signal, resumably.
        case interrupted
        /// There is a start and no end, and nobody who works on it: killed, or the power went.
        case killed
    }

    public private(set) var schema = 1
    public let id: String
    public let kind: Kind
    /// Name of the policy; nil of a run by hand.
    public let policy: String?
    public let schedule: String?
    public let node: String?
    /// The repository's place.
    public let repository: String?
    /// The file that the run's numbers go to (`metrics.textfile`), which runs of other policies may share.
    public let textfile: String?
    /// Path of the policy's file: what is gone there needs nobody's attention any more.
    public let policyFile: String?
    public let started: String
    public internal(set) var ended: String?
    public internal(set) var durationSeconds: Double?
    public internal(set) var exitStatus: Int32?
    /// As `docs/errors.md` names it.
    public internal(set) var errorCode: String?
    public internal(set) var errorMessage: String?
    public internal(set) var outcome: Outcome
    public var figures = Figures()

    /// Characters of a message that are kept.
    static let longestMessage = 1000

    /// A run that begins.
    /// - Parameters:
    ///   - policy: what is no name of a policy counts as none; so does a schedule
    ///   - repository: its URL, of which only the place is kept
    public init(
        _ kind: Kind, policy: String? = nil, schedule: String? = nil, node: String? = nil, repository: String? = nil,
        textfile: String? = nil, policyFile: String? = nil, ambient: Ambient = .system
    ) {
        let now = ambient.now()
        self.kind = kind
        self.policy = policy.flatMap(RunHistory.Name.part)
        self.schedule = schedule.flatMap(RunHistory.Name.part)
        self.node = node
        self.repository = repository.map(Self.publicPlace)
        self.textfile = textfile
        self.policyFile = policyFile
        started = formatTimeExact(now)
        id =
            RunHistory.Name(
                start: now, kind: kind, policy: self.policy, schedule: self.schedule, random: ambient.random(4).hex
            ).text
        outcome = .running
    }

    /// Seconds since 1970; of damaged text 0.
    public var start: Double { parseTime(started) ?? 0 }
    /// Seconds since 1970; nil of a run without an end.
    public var end: Double? { ended.flatMap(parseTime) }
    /// Whether there is a snapshot, or whatever else the run was for.
    public var isDone: Bool { outcome == .success || outcome == .warning }

    /// Writes down how it ended.
    /// - Parameters:
    ///   - status: the exit status of CLI.md
    ///   - code: of the error, if there was one
    mutating func end(_ status: Int32, code: String?, message: String?, after seconds: Double, at now: Int64) {
        ended = formatTimeExact(now)
        durationSeconds = (seconds * 1000).rounded() / 1000
        exitStatus = status
        errorCode = code
        errorMessage = message.map { String(printable($0.utf8).prefix(Self.longestMessage)) }
        outcome = Self.outcome(status, kind, figures)
    }

    /// Of a record whose run is gone.
    mutating func giveUp() {
        outcome = .killed
        errorCode = "killed"
        errorMessage = "the run was killed, or the machine went down: there is no end of it"
    }

    private static func outcome(_ status: Int32, _ kind: Kind, _ figures: Figures) -> Outcome {
        switch status {
        case 0: figures.verdict == "warn" || figures.anomaly != nil ? .warning : .success
        case BackupError.Code.incomplete.exitStatus: .warning
        // Locks keep what should go, and all else went.
        case BackupError.Code.immutable.exitStatus where kind == .prune || kind == .forget: .warning
        case BackupError.Code.busy.exitStatus: .busy
        case 128...: .interrupted
        default: .failure
        }
    }

    /// A repository's URL for everybody's eyes: without user, password and options.
    public static func publicPlace(_ url: String) -> String {
        guard let scheme = url.firstRange(of: "://") else { return printable(url.utf8) }
        var rest = url[scheme.upperBound...]
        let authority = rest.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        let port = authority.drop { $0 != ":" }.dropFirst()
        if let at = authority.lastIndex(of: "@") {
            rest = rest[rest.index(after: at)...]
        } else if !authority.hasPrefix("["), !port.allSatisfy(\.isNumber) {
            // No port: a secret, which may hold a slash, and ends with the last @ there is.
            rest = rest.lastIndex(of: "@").map { rest[rest.index(after: $0)...] } ?? ""
        }
        return printable((url[..<scheme.upperBound] + rest.prefix { $0 != "?" && $0 != "#" }).utf8)
    }
}

extension RunRecord {
    /// What a run counted. Each kind of run fills in what it knows.
    public struct Figures: Codable, Sendable, Equatable {
        // backup, watch: of the last snapshot; of a watch, bytes read, new and stored of all of them
        public var snapshot: String?
        public var parent: String?
        public var capture: String?
        public var consistency: String?
        public var filesNew: Int?
        public var filesChanged: Int?
        public var filesUnmodified: Int?
        public var bytesTotal: Int64?
        public var bytesRead: Int64?
        public var bytesNew: Int64?
        public var bytesStored: Int64?
        /// For which writes were held.
        public var captureSeconds: Double?
        public var problems: Int?
        public var warnings: Int?
        public var points: UInt64?
        /// That the volume changed unlike before, in words: retention stops until somebody accepts it.
        public var anomaly: String?
        /// The last such change, of this run or one before it, and its moment: a good backup does not make it right.
        public var anomalyStanding: String?
        public var anomalySince: String?
        /// What was wrong with the policy's timers and times when the run ended, as far as that was told:
        /// "timer-missing backup hourly".
        public var attention: [String]?
        // watch
        public var snapshotsMade: Int?
        public var failures: Int?
        /// When the last snapshot was made, or found to need none.
        public var lastDone: String?
        // forget, prune
        public var snapshots: Int?
        public var snapshotsForgotten: Int?
        /// When this run, or the last one before it that did, judged the snapshots of all nodes by rules; what it found
        /// then is `anomalyStanding`. RFC 3339.
        public var judged: String?
        public var snapshotsLocked: Int?
        /// All packs that are there, and of these what snapshots need, what can go later, what locks keep.
        public var repositoryBytes: Int64?
        public var repositoryBytesNeeded: Int64?
        public var repositoryBytesUnused: Int64?
        public var repositoryBytesLocked: Int64?
        public var bytesFreed: Int64?
        /// When the last lock that is known of ends.
        public var lockedUntil: String?
        /// Until then everything is locked that is needed then.
        public var lockHorizon: String?
        public var locksExtended: Int?
        // check
        public var damages: Int?
        /// Those that are not known to be mended, of this check or one before it, and the share of the data that it read.
        public var damagesStanding: Int?
        public var damagesShare: Double?
        public var packs: Int?
        public var framesRead: Int?
        /// Of the data, that was read; 0…1.
        public var dataShare: Double?
        // drill
        /// pass, warn or fail
        public var verdict: String?
        public var recoverySeconds: Double?
        public var recoveryObjectiveSeconds: Double?
        public var recoveryPointSeconds: Double?
        public var recoveryPointObjectiveSeconds: Double?
        public var pointsExpected: UInt64?
        public var pointsFound: UInt64?
        // copy
        public var snapshotsCopied: Int?
        public var bytesCopied: Int64?
        public var copyLocation: String?

        public init() {}
    }
}
