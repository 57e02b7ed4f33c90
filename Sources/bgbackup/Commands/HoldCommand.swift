import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository
import Glibc

struct HoldCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hold", abstract: "Keep a snapshot, whatever the retention policy says.",
        discussion: """
            A held snapshot is not forgotten, by no policy and by no name, until 'bgbackup release' or the hold is over. It \
            may be held several times, for several reasons; 'release' takes all holds back.

              bgbackup hold latest --reason 'before the upgrade' --until 90d
            """)

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Snapshot: id, prefix, latest or latest@NODE.") var snapshot: String
    @Option(help: "Why, for whoever finds it.") var reason = ""
    @Option(
        help: ArgumentHelp(
            "How long, as 90d, or until when (UTC), as 2027-01-31; for ever where it is not given.", valueName: "time"))
    var until: String?

    func validate() throws {
        guard reason.utf8.count <= 1000 else { throw ValidationError("--reason has 1000 bytes at the most.") }
        guard let until else { return }
        guard Self.moment(until, now: 0) != nil else {
            throw ValidationError("'\(until)' is no time for --until: give a duration like 90d, or a day like 2027-01-31.")
        }
    }

    /// Seconds since 1970; nil for what is no time.
    static func moment(_ text: String, now: Double) -> Double? {
        // With its unit: a bare number may be meant as a year.
        if text.last?.isLetter == true, let seconds = parseDuration(text), seconds > 0, seconds < 1e10 { return now + seconds }
        let full = text.utf8.count == 10 ? text + "T00:00:00Z" : text
        // Not every text that looks like a time is one: the 31st of November is read as the 1st of December.
        guard let moment = parseTime(full), formatTime(moment, "%Y-%m-%dT%H:%M:%S") == full.prefix(19) else { return nil }
        return moment
    }

    struct Document: Encodable {
        let snapshot_id: String
        let holds: [HoldNote]
        let released: Int
    }

    mutating func run() async throws {
        let repository = try await Session(options: global).open()
        let name = try await repository.selectOwned(snapshot)
        let now = Double(try await repository.storeNow()) / 1e9
        let end = until.flatMap { Self.moment($0, now: now) }
        if let end, end <= now {
            throw BackupError(.usage, "--until \(until ?? "") is over already", hint: "Give a time to come.")
        }
        let note = try await repository.hold(name.id, reason: reason, until: end, by: Self.operator)
        if global.json {
            return try Output.document(Document(snapshot_id: "\(name.id)", holds: [note], released: 0), lines: true)
        }
        guard !global.quiet else { return }
        Output.line("snapshot \("\(name.id)".prefix(8)) is held\(note.words.isEmpty ? "" : ": \(note.words)")")
    }

    /// Who runs this, for people: user and host.
    static var `operator`: String {
        let user = getpwuid(geteuid()).map { String(cString: $0.pointee.pw_name) } ?? "user \(geteuid())"
        return "\(user)@\(Session.hostName)"
    }
}

struct ReleaseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "release", abstract: "Take all holds of a snapshot back: the retention policy decides about it again.")

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Snapshot: id, prefix, latest or latest@NODE.") var snapshot: String

    mutating func run() async throws {
        let repository = try await Session(options: global).open()
        let name = try await repository.selectOwned(snapshot)
        let count = try await repository.release(name.id)
        if global.json {
            return try Output.document(
                HoldCommand.Document(snapshot_id: "\(name.id)", holds: [], released: count), lines: true)
        }
        guard !global.quiet else { return }
        let short = "\(name.id)".prefix(8)
        Output.line(
            count == 0
                ? "snapshot \(short) was not held" : "snapshot \(short) is held no more (\(count) hold\(count == 1 ? "" : "s"))")
    }
}

extension Repository {
    /// A snapshot's name, for those who may decide about it.
    func selectOwned(_ text: String) async throws -> SnapshotName {
        guard keys.canRead else {
            throw BackupError(
                .writeOnlyKey, "a writer key makes backups and decides about none",
                hint: "Use the repository's password (--password-file), from a place that the nodes cannot reach.")
        }
        return try await selectName(text)
    }
}
