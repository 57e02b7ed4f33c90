import BackupBase
import FoundationEssentials
import Glibc

/// What ran on this node: one small file for each run, in `runs` of the state directory.
///
/// A file for each run, and not one that all append to: runs of several processes never write to
/// the same file, each state of a record is whole (written aside, forced to the disk, renamed), and a
/// damaged one costs itself only. The file is there from the run's beginning, without an end, and
/// locked (flock(2)) by the run while that lives: an unlocked one without an end was killed. A lock,
/// because a process number may be somebody else's by now, and is another one in a container.
public struct RunHistory: Sendable {
    /// How much is kept. The newest run of each job always stays.
    public struct Bounds: Sendable {
        /// Of each job: kind, policy and schedule.
        public var count = 4000
        /// Seconds.
        public var age = 400.0 * 86_400

        public init() {}
    }

    public let directory: String
    private let bounds: Bounds
    private let ambient: Ambient

    /// Bytes of a record at the most.
    private static let limit = 64 << 10

    public init(stateDirectory: String, bounds: Bounds = Bounds(), ambient: Ambient = .system) {
        directory = "\(stateDirectory)/runs"
        self.bounds = bounds
        self.ambient = ambient
    }

    // MARK: - Writing

    /// Writes down that a run begins.
    /// - Throws: `BackupError` where the directory does not take it; the run itself can go on
    public func begin(_ record: RunRecord) throws -> ActiveRun {
        let run = ActiveRun(record, in: self)
        try run.save()
        return run
    }

    /// Puts a record in place. The lock goes with the file that is written aside.
    /// - Returns: the descriptor that holds the lock
    fileprivate func write(_ record: RunRecord) throws -> Int32 {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        let bytes = Array(try encoder.encode(record)) + [0x0a]
        let path = "\(directory)/\(record.id)"
        let aside = "\(directory)/.\(record.id).\(ambient.random(4).hex)"
        let file = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw Self.failure(aside) }
        // Where a file system knows no locks the run counts as running while it has no end.
        _ = LocalFile.tryLock(file, shared: false)
        guard LocalFile.write(bytes, to: file), fdatasync(file) == 0, rename(aside, path) == 0 else {
            let error = Self.failure(path)
            close(file)
            unlink(aside)
            throw error
        }
        LocalFile.synchronize(directory: directory)
        return file
    }

    /// What is too old or too much goes.
    fileprivate func prepare(for record: RunRecord) throws {
        guard LocalFile.makeDirectory(directory) else { throw Self.failure(directory) }
        tidy(record)
    }

    private func remove(_ id: String) { unlink("\(directory)/\(id)") }

    /// Takes away what is beyond the bounds, of all jobs, because some of them run no more, and what runs that were
    /// killed left aside.
    private func tidy(_ record: RunRecord) {
        let now = Double(ambient.now()) / 1e9
        var jobs: [Name.Job: [Name]] = [:]
        for file in LocalFile.names(in: directory) {
            if let name = Name(file) {
                jobs[name.job, default: []].append(name)
            } else if file.hasPrefix("."), let moment = Name(String(file.dropFirst().dropLast(9)))?.seconds,
                moment < now - 86_400
            {
                remove(file)
            }
        }
        let own = Name.Job(kind: record.kind, policy: record.policy, schedule: record.schedule)
        for (job, names) in jobs {
            // The record itself comes on top of its own; of others the newest stays.
            let more = job == own ? 1 : 0
            for (index, name) in names.sorted(by: { $0.text > $1.text }).enumerated()
            where index + more >= bounds.count || index + more > 0 && name.seconds < now - bounds.age {
                remove(name.text)
            }
        }
    }

    private static func failure(_ path: String) -> BackupError {
        BackupError(
            .failed, "the history of runs cannot be written: \(printable(path.utf8)): \(String(cString: strerror(errno)))",
            hint: "Set BGBACKUP_STATE_DIR to a directory that this user may write, with room on its disk.")
    }

    // MARK: - Reading

    /// Records, and files that are none.
    public struct Reading: Sendable {
        /// Newest first.
        public var records: [RunRecord] = []
        /// Names of files that cannot be read as what they claim to be: skipped, and worth a word.
        public var damaged: [String] = []

        public init() {}
    }

    /// What is known of runs.
    /// - Parameters:
    ///   - since: seconds since 1970; runs that began earlier are left out
    ///   - most: records at the most, the newest
    ///   - isWanted: by its name, before a record is read
    public func read(since: Double = 0, most: Int = .max, where isWanted: (Name) -> Bool = { _ in true }) -> Reading {
        var reading = Reading()
        for name in names where name.seconds >= since && isWanted(name) {
            guard reading.records.count < most else { break }
            switch load(name) {
            case .record(let record): reading.records.append(record)
            case .damaged: reading.damaged.append(name.text)
            case .gone: break
            }
        }
        return reading
    }

    /// The newest runs of each job, back to its last that was done: what a state consists of, for little reading.
    /// - Parameter id: of a run that is left out: what was before it
    public func latest(without id: String? = nil) -> Reading {
        var reading = Reading()
        var closed: Set<Name.Job> = []
        for name in names where !closed.contains(name.job) && name.text != id {
            switch load(name) {
            case .record(let record):
                reading.records.append(record)
                if record.isDone { closed.insert(name.job) }
            case .damaged: reading.damaged.append(name.text)
            case .gone: break
            }
        }
        return reading
    }

    /// Of all records, newest first.
    public var names: [Name] { LocalFile.names(in: directory).compactMap { Name($0) }.sorted { $0.text > $1.text } }

    private enum Loaded { case record(RunRecord), damaged, gone }

    private func load(_ name: Name) -> Loaded {
        var record: RunRecord?
        // Once more where it looks killed: it may have been replaced by its end a moment ago.
        for _ in 0..<2 {
            let file = open("\(directory)/\(name.text)", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
            guard file >= 0 else { return errno == ENOENT ? .gone : .damaged }
            defer { close(file) }
            guard let bytes = LocalFile.read(file, limit: Self.limit),
                let found = try? Self.decoder.decode(RunRecord.self, from: Data(bytes)),
                found.schema == 1, found.id == name.text, found.kind == name.kind, parseTime(found.started) != nil
            else { return .damaged }
            record = found
            guard found.ended == nil, LocalFile.tryLock(file, shared: true) else { return .record(found) }
        }
        record?.giveUp()
        return record.map { .record($0) } ?? .damaged
    }

    private static var decoder: JSONDecoder {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return decoder
    }
}

extension RunHistory {
    /// A record's file name, which tells without reading it: `20261127T184206123Z.backup.qdrant-prod.hourly.1a2b3c4d.json`.
    public struct Name: Sendable {
        struct Job: Hashable {
            let kind: RunRecord.Kind
            let policy: String?
            let schedule: String?
        }

        public let text: String
        public let kind: RunRecord.Kind
        public let policy: String?
        public let schedule: String?
        /// Of the beginning, since 1970.
        public let seconds: Double

        var job: Job { Job(kind: kind, policy: policy, schedule: schedule) }

        init(start: Int64, kind: RunRecord.Kind, policy: String?, schedule: String?, random: String) {
            let stamp = formatTimeExact(start).filter { $0.isNumber || $0 == "T" }.prefix(18)
            text = "\(stamp)Z.\(kind.rawValue).\(policy ?? "_").\(schedule ?? "_").\(random).json"
            self.kind = kind
            self.policy = policy
            self.schedule = schedule
            seconds = Double(start) / 1e9
        }

        public init?(_ text: String) {
            let parts = text.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 6, parts[5] == "json", let kind = RunRecord.Kind(rawValue: parts[1]),
                let moment = Self.moment(parts[0])
            else { return nil }
            self.text = text
            self.kind = kind
            policy = parts[2] == "_" ? nil : parts[2]
            schedule = parts[3] == "_" ? nil : parts[3]
            seconds = moment
        }

        /// "20261127T184206123Z"
        private static func moment(_ stamp: String) -> Double? {
            let digits = Array(stamp)
            guard digits.count == 19, stamp.utf8.count == 19 else { return nil }
            func part(_ range: Range<Int>) -> String { String(digits[range]) }
            return parseTime(
                "\(part(0..<4))-\(part(4..<6))-\(part(6..<8))T\(part(9..<11)):\(part(11..<13)):\(part(13..<15)).\(part(15..<18))Z"
            )
        }

        /// A policy's or schedule's name as file names take it; nil of what is none.
        static func part(_ text: String) -> String? {
            let isName =
                (1...63).contains(text.utf8.count)
                && text.utf8.allSatisfy {
                    (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-")
                }
            return isName ? text : nil
        }
    }
}

/// A run that is under way, and its record.
public final class ActiveRun: @unchecked Sendable {
    // Unchecked: what changes is behind the lock.
    private let history: RunHistory?
    private let start = monotonicSeconds()
    private let state: Locked<(record: RunRecord, file: Int32)>

    /// Nothing is written before `save`.
    /// - Parameter history: nil where there is no place for one
    public init(_ record: RunRecord, in history: RunHistory?) {
        self.history = history
        state = Locked((record, -1))
    }

    deinit { state.withLock { if $0.file >= 0 { close($0.file) } } }

    public var record: RunRecord { state.withLock { $0.record } }

    /// Notes what it counted; `save` writes it down before the end.
    public func note(_ body: (inout RunRecord.Figures) -> Void) { state.withLock { body(&$0.record.figures) } }

    /// Writes the record as it is now.
    public func save() throws {
        guard let history else { return }
        try state.withLock { state in
            if state.file < 0 { try history.prepare(for: state.record) }
            let file = try history.write(state.record)
            if state.file >= 0 { close(state.file) }
            state.file = file
        }
    }

    /// Of a run that goes on: with a new day (UTC) a new record begins, so that each day has its own. One on which nothing
    /// was made ends as what stood in the way, and is no good day.
    /// - Parameters:
    ///   - code: what went wrong last; nil: others had the lock
    ///   - attempt: gets what writes the records
    /// - Returns: nil on the same day
    public func nextDay(
        _ code: BackupError.Code?, _ message: String?, ambient: Ambient = .system, attempt: (() throws -> Void) -> Void
    ) -> ActiveRun? {
        let known = record
        guard known.started.prefix(10) != formatTime(ambient.now()).prefix(10) else { return nil }
        settle(after: nil)
        let trouble = known.figures.lastDone == nil ? code ?? .busy : nil
        attempt {
            try end(
                trouble?.exitStatus ?? 0, code: trouble?.rawValue, message: trouble == nil ? nil : message, ambient: ambient)
        }
        let next = ActiveRun(
            RunRecord(
                known.kind, policy: known.policy, schedule: known.schedule, node: known.node, repository: known.repository,
                textfile: known.textfile, policyFile: known.policyFile, ambient: ambient), in: history)
        next.settle(after: record)
        attempt { try next.save() }
        return next
    }

    /// Writes down the end. Where that fails, `record` has it all the same.
    /// - Parameter status: exit status of CLI.md
    /// - Returns: the record as it stays
    @discardableResult
    public func end(_ status: Int32, code: String? = nil, message: String? = nil, ambient: Ambient = .system) throws -> RunRecord
    {
        state.withLock {
            $0.record.end(status, code: code, message: message, after: monotonicSeconds() - start, at: ambient.now())
        }
        try save()
        return record
    }
}
