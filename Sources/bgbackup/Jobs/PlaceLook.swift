import BackupBase
import Glibc
import ObjectStorage
import Operations

/// A look at a repository's place just now: what stands in the way of the next run. One request, or three where there is
/// no snapshot, and no password: the names of snapshots tell how many there are, and the store's clock how old they are.
struct PlaceLook: Sendable {
    var problems: [Problem] = []
    var snapshots: Int?
    /// Seconds since 1970, by the store's clock.
    var newest: Double?
    /// Why the store was not asked, which is no problem.
    var note: String?
    /// Share of the disk, of a repository on this machine.
    var free: Double?

    /// Seconds for the store's answer, and before it for those of the machine's own file systems.
    private static let patience = 5.0

    /// The store to ask; nil where it is not asked.
    private var store: (any ObjectStore)?
    /// Whether units run it, which have credentials that a shell has not.
    private var isOfUnits = false

    /// Looks. A disk or a server that does not answer holds nobody up: a file system of a server that is gone would for ever.
    /// - Parameter policy: whose secrets are looked for; nil: the repository of `session`
    static func at(_ policy: Policy?, _ session: Session) async -> PlaceLook {
        var late = PlaceLook()
        late.add(unanswered: policy.map { RunRecord.publicPlace($0.repository.url) } ?? "the repository's disk")
        guard let look = await bounded({ PlaceLook(policy, session) }) else { return late }
        if let seen = await bounded({ await look.asked() }) { return seen }
        var unanswered = look
        unanswered.add(unanswered: look.store?.location ?? "the store")
        return unanswered
    }

    private static func bounded(_ body: @escaping @Sendable () async -> PlaceLook) async -> PlaceLook? {
        (try? await BoundedWait.value(within: patience, body)) ?? nil
    }

    private init() {}

    /// All that can be seen without asking a store.
    private init(_ policy: Policy?, _ session: Session) {
        var url = session.options.repository ?? Session.environment("BGBACKUP_REPOSITORY")
        isOfUnits = policy != nil
        if let policy {
            problems += Self.secrets(policy, session)
            do {
                url = try policy.repositoryURL { try BackupPolicy.path(of: $0, session) }
            } catch {
                // Where they are nowhere, the secrets say so.
                note = "not asked: its keys are a credential of the unit"
                return
            }
        }
        guard let url else { return }
        if let path = policy?.repository.localPath ?? (url.contains("://") ? nil : url), let disk = Disk(path) {
            free = disk.free
            if disk.isFull { problems.append(disk.problem(.storeFull, "the disk of the repository")) }
        }
        do { store = try session.store(at: url) } catch { add(error) }
    }

    /// What a disk of this machine says that runs need.
    static func disks(_ session: Session) -> [Problem] {
        guard let path = session.stateDirectory, let disk = Disk(path), disk.isFull else { return [] }
        return [disk.problem(nil, "the disk of the state directory")]
    }

    /// Asks the store.
    private func asked() async -> PlaceLook {
        var look = self
        await look.ask()
        return look
    }

    private mutating func ask() async {
        guard let store else { return }
        if let s3 = store as? S3Store {
            do { _ = try await s3.keySource() } catch {
                // Only the unit can have them: that is no trouble. Else they expired, or are nowhere.
                guard Self.isStored("bgbackup.s3") || isOfUnits && geteuid() != 0 else { return add(error) }
                note = "not asked: its keys are a credential of the unit"
                return
            }
        }
        do {
            let found = try await store.list("v1/snapshots/")
            // An empty list is also what a directory has whose disk is not mounted.
            var isThere = !found.isEmpty
            for name in Self.configuration where !isThere { isThere = try await store.info(name) != nil }
            guard isThere else {
                problems.append(
                    Problem(
                        BackupError.Code.noRepository.rawValue,
                        "there is no repository at \(store.location)\(store is LocalStore ? ": is its disk mounted?" : "")"))
                return
            }
            snapshots = found.count
            newest = found.map(\.modified).max().map { Double($0) / 1e9 }
        } catch { add(error) }
    }

    /// Either of which makes a repository (docs/format.md).
    private static let configuration = ["v1/config.a", "v1/config.b"]

    private mutating func add(unanswered place: String) {
        problems.append(
            Problem(
                BackupError.Code.storeUnreachable.rawValue,
                "\(place) gives no answer within \(formatDuration(Self.patience))"))
    }

    private mutating func add(_ error: any Error) {
        let known = ErrorMapping.backupError(error) ?? BackupError(.failed, "\(error)")
        problems.append(Problem(known.code.rawValue, known.description))
    }

    /// Secrets that the policy names and that are nowhere.
    private static func secrets(_ policy: Policy, _ session: Session) -> [Problem] {
        var problems: [Problem] = []
        let named = [
            ("password", policy.password), ("writer key", policy.writerKey), ("keys", policy.repository.credentials),
        ]
        for (what, reference) in named {
            switch reference {
            case .file(let path)? where access(path, R_OK) != 0 && (geteuid() == 0 || errno == ENOENT):
                problems.append(
                    Problem(
                        BackupError.Code.noPassword.rawValue, "the file \(printable(path.utf8)) of the \(what) cannot be read"))
            case .credential(let name)? where geteuid() == 0 && session.credential(name) == nil && !isStored(name):
                problems.append(
                    Problem(
                        BackupError.Code.noPassword.rawValue, "the credential \(printable(name.utf8)) of the \(what) is nowhere"))
            default: break
            }
        }
        return problems
    }

    /// Where systemd looks for credentials (systemd.exec(5)).
    private static func isStored(_ name: String) -> Bool {
        ["/etc", "/run", "/usr/lib"].contains { base in
            ["credstore", "credstore.encrypted"].contains { access("\(base)/\($0)/\(name)", F_OK) == 0 }
        }
    }
}

/// Room on the file system of a path, or of what stands above it.
struct Disk {
    let path: String
    /// Bytes for whoever is not root.
    let available: UInt64
    /// Share.
    let free: Double

    init?(_ path: String) {
        var existing = path
        while access(existing, F_OK) != 0, let slash = existing.lastIndex(of: "/") {
            existing = slash == existing.startIndex ? "/" : String(existing[..<slash])
        }
        var value = statvfs()
        guard statvfs(existing, &value) == 0, value.f_blocks > 0 else { return nil }
        self.path = existing
        available = UInt64(value.f_bavail) * UInt64(value.f_frsize)
        free = Double(value.f_bavail) / Double(value.f_blocks)
    }

    /// Less than a hundredth, or than a pack needs.
    var isFull: Bool { free < 0.01 || available < 64 << 20 }

    func problem(_ code: BackupError.Code?, _ what: String) -> Problem {
        Problem(
            code?.rawValue ?? Problem.Code.diskFull.rawValue,
            "\(what) is full: \(formatBytes(Int64(available))) left on \(printable(path.utf8))")
    }
}
