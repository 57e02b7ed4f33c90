import ArgumentParser
import BackupBase
import BackupRepository
import CLinux
import Glibc
import ObjectStorage

struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Check this node's surroundings, with a fix for each finding.",
        discussion:
            "Looks and changes nothing. Shows where keys and passwords come from, and never their values. Exit status 1: something is wrong."
    )

    @OptionGroup var global: GlobalOptions

    struct Line: Encodable {
        let check: String
        let ok: Bool
        let detail: String
        let fix: Nullable<String>
    }

    struct Document: Encodable {
        let ok: Bool
        let checks: [Line]
    }

    mutating func run() async throws {
        var visit = DoctorVisit(session: Session(options: global))
        await visit.run()
        let isWell = visit.findings.allSatisfy(\.isWell)
        if global.json {
            let lines = visit.findings.map { Line(check: $0.name, ok: $0.isWell, detail: $0.detail, fix: Nullable($0.fix)) }
            try Output.document(Document(ok: isWell, checks: lines))
        } else {
            for finding in visit.findings where !global.quiet || !finding.isWell {
                Output.line("\(finding.isWell ? "✓" : "✗") \(finding.name): \(finding.detail)")
                if let fix = finding.fix { Output.line("    FIX: \(fix)") }
            }
        }
        if !isWell { throw ExitCode(1) }
    }
}

/// One walk around the node.
struct DoctorVisit {
    struct Finding {
        let name: String
        let isWell: Bool
        let detail: String
        let fix: String?
    }

    let session: Session
    private(set) var findings: [Finding] = []

    init(session: Session) { self.session = session }

    mutating func run() async {
        checkDirectory("state directory", session.stateDirectory, "BGBACKUP_STATE_DIR")
        checkDirectory("cache directory", session.cacheDirectory, "BGBACKUP_CACHE_DIR")
        checkCore()
        let session = session
        guard let store = await examine("repository URL", { try session.store() }, { $0.location }) else { return }
        if let store = store as? S3Store { await checkS3(store) }
        await checkRepository(store)
    }

    private mutating func add(_ name: String, _ isWell: Bool, _ detail: String, fix: String? = nil) {
        findings.append(Finding(name: name, isWell: isWell, detail: detail, fix: isWell ? nil : fix))
    }

    /// Runs a check; what it throws is the finding.
    private mutating func examine<Value>(
        _ name: String, _ body: () async throws -> Value, _ tell: (Value) -> String
    ) async -> Value? {
        do {
            let value = try await body()
            add(name, true, tell(value))
            return value
        } catch {
            let known = ErrorMapping.backupError(error) ?? BackupError(.failed, "\(error)")
            add(name, false, known.description, fix: known.hint)
            return nil
        }
    }

    // MARK: - The node

    private mutating func checkDirectory(_ name: String, _ path: String?, _ variable: String) {
        guard let path else { return add(name, false, "there is none", fix: "Set \(variable) to a directory that lasts.") }
        // What does not exist yet is made below the closest directory that does.
        var existing = path
        while access(existing, F_OK) != 0, let slash = existing.lastIndex(of: "/") {
            existing = slash == existing.startIndex ? "/" : String(existing[..<slash])
        }
        let writable = access(existing, W_OK | X_OK) == 0
        add(
            name, writable, writable ? path : "\(existing) is not writable for this user",
            fix: "Set \(variable) to a directory that this user may write.")
    }

    private mutating func checkCore() {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit)
        add(
            "core dumps", limit.rlim_cur == 0, limit.rlim_cur == 0 ? "off: keys in memory stay there" : "are on",
            fix: "Set LimitCORE=0 in the unit.")
    }

    // MARK: - The store

    private mutating func checkS3(_ store: S3Store) async {
        let place = store.place
        let encrypted = store.usesTLS
        let isLocal = ["http://127.", "http://localhost", "http://[::1]"].contains { store.address.hasPrefix($0) }
        add(
            "transport", encrypted || isLocal,
            encrypted
                ? "TLS, \(place.certificates.map { "authority \($0)" } ?? "the system's authorities")"
                : isLocal ? "no TLS, to this machine itself" : "no TLS (http://)",
            fix: "Use an https:// endpoint: object names and sizes are readable on the way.")
        let source = await examine("keys", { try await store.keySource() }) { keys in
            "from \(keys.source)" + (keys.expires.map { ", until \(formatTime($0))" } ?? "")
        }
        guard source != nil else { return }
        let start = monotonicSeconds()
        let reached = await examine("bucket", { try await store.list("v1/keys/") }) { _ in
            "\(store.address), region \(store.region), answers in \(formatDuration(monotonicSeconds() - start))"
        }
        guard reached != nil else { return }
        let kept = [
            place.storageClass.map { "packs in \($0)" }, place.encryption == .none ? nil : "encrypted by the store",
            place.lockMode.map { "locked (\($0.rawValue)) for \(formatDuration(Double(place.lockFor) / 1e9))" },
        ].compactMap { $0 }
        add("objects", true, kept.isEmpty ? "standard class, no lock" : kept.joined(separator: ", "))
    }

    private mutating func checkRepository(_ store: any ObjectStore) async {
        let session = session
        guard let repository = await examine("repository", { try await session.open() }, { "\($0.id)" }) else { return }
        add(
            "key", true,
            repository.keys.canRead ? "a password: it can read everything" : "a writer key: it backs up and reads nothing")
        let writers = repository.isShared ? "several nodes may write" : "one node may write: the store has no conditional writes"
        add("writers", true, writers)
        _ = await examine("snapshots", { try await repository.snapshotNames() }) { "\($0.count)" }
    }
}
