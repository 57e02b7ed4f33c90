import BackupBase
import BackupEngine
import BackupRepository
import CLinux
import FoundationEssentials
import Glibc
import ObjectStorage
import Operations
import Subprocess
import SystemPackage

/// Finds the repository and the secret that the options and the environment name.
struct Session {
    let options: GlobalOptions

    /// The commands' own threads and those of reading, compressing, writing: a
    /// few more than cores, because some of them wait for the disk.
    static let executor = BlockingExecutor(threads: 18, background: isBackground.withLock { $0 })

    /// Whether the threads get only what others leave over; decided before the first of them starts.
    static let isBackground = Locked(false)

    func store() throws -> any ObjectStore {
        guard let url = options.repository ?? environment("BGBACKUP_REPOSITORY") else {
            throw BackupError(
                .usage, "no repository is named", hint: "Give --repository, or set BGBACKUP_REPOSITORY.")
        }
        return try store(at: url)
    }

    /// The store that a URL names; nothing is asked of it yet.
    func store(at url: String) throws -> any ObjectStore {
        if url.hasPrefix("s3://") { return try s3Store(url) }
        let path = url.hasPrefix("file://") ? String(url.dropFirst("file://".count)) : url
        let scheme = path.prefix { $0.isLetter || $0.isNumber }
        guard path.hasPrefix("/") || !url.hasPrefix("file://"), !path.isEmpty, !path.dropFirst(scheme.count).hasPrefix("://")
        else {
            throw BackupError(
                .usage, "'\(printable(url.utf8))' is no repository", hint: "Give a path, file:///path or s3://BUCKET/PREFIX.")
        }
        return LocalStore(path: absolute(path))
    }

    func s3Store(_ url: String) throws -> S3Store {
        var place = try S3Place(url: url, environment: { Self.environment($0) })
        if let limit = options.limitUpload { place.uploadLimit = try Self.rate(limit, "--limit-upload") }
        if let limit = options.limitDownload { place.downloadLimit = try Self.rate(limit, "--limit-download") }
        return try S3Store(
            place: place, credentialFile: credential("bgbackup.s3"), environment: { Self.environment($0) })
    }

    static func rate(_ text: String, _ option: String) throws -> Int {
        guard let rate = parseBytes(text), rate >= 1024 else {
            throw BackupError(.usage, "'\(text)' is no rate for \(option)", hint: "Give bytes a second, for example 20MiB.")
        }
        return rate
    }

    func create(password: [UInt8], label: String) async throws -> Repository {
        let store = try store()
        try Self.makeDirectory(of: store)
        let probe = try await StoreProbe.run(store)
        try probe.requireUsable()
        return try await Repository.create(
            store: store, password: password, label: label, by: HoldCommand.operator, probe: probe.record,
            executor: Self.executor, identity: identity)
    }

    /// Makes the directory of a local store, where it is missing.
    static func makeDirectory(of store: any ObjectStore) throws {
        guard store is LocalStore, mkdir(store.location, 0o700) != 0, errno != EEXIST else { return }
        throw BackupError(
            .storeFailed, "cannot make the repository's directory \(store.location): \(String(cString: strerror(errno)))",
            hint: "Its parent directory must exist.")
    }

    /// A node that only holds the writer key gets told so, not asked for a password.
    var holdsWriterKeyOnly: Bool { get throws { try onlyWriterKey() != nil } }

    /// Opens for reading, with the password.
    func open() async throws -> Repository {
        if let ring = try onlyWriterKey() { return try await open(writer: ring) }
        return try await open(with: try await password())
    }

    /// Opens for reading, and lists snapshots and notes meanwhile.
    func openWithListing() async throws -> (Repository, SnapshotListing) {
        if let ring = try onlyWriterKey() {
            let repository = try await open(writer: ring)
            return (repository, try await SnapshotListing(repository.store))
        }
        let (repository, listing) = try await Repository.openWithListing(
            store: try store(), password: try await password(), executor: Self.executor, identity: identity,
            cache: cacheDirectory)
        warnIfOutdated(repository)
        return (repository, listing)
    }

    /// Opens with this password. Says so where it opens only what is older than a rotation of the keys.
    func open(with password: [UInt8]) async throws -> Repository {
        let repository = try await Repository.open(
            store: try store(), password: password, executor: Self.executor, identity: identity, cache: cacheDirectory)
        warnIfOutdated(repository)
        return repository
    }

    private func warnIfOutdated(_ repository: Repository) {
        guard repository.isOutdated else { return }
        Terminal.note("bgbackup: this password opens only what was stored before the key pair was rotated", .warning)
    }

    private func open(writer ring: KeyRing) async throws -> Repository {
        try await Repository.open(store: try store(), writer: ring, executor: Self.executor, identity: identity)
    }

    /// The key of a node that only holds a writer key: it gets told so, and is not asked for a password.
    private func onlyWriterKey() throws -> KeyRing? {
        options.passwordFile == nil && !hasPassword ? try writerKey(nil) : nil
    }

    /// Opens for a backup, with the writer key where there is one, unless a password was named and that only lies about:
    /// it may be another repository's.
    func openForBackup(writerKeyFile: String?) async throws -> Repository {
        if writerKeyFile != nil || options.passwordFile == nil, let ring = try writerKey(writerKeyFile) {
            return try await open(writer: ring)
        }
        return try await open(with: try await password())
    }

    // MARK: - Places

    /// Where the node remembers volumes: `BGBACKUP_STATE_DIR`, the unit's
    /// directory, root's or the user's.
    var stateDirectory: String? {
        directory(
            "BGBACKUP_STATE_DIR", unit: "STATE_DIRECTORY", root: "/var/lib/bgbackup", xdg: "XDG_STATE_HOME", home: ".local/state")
    }

    var cacheDirectory: String? {
        directory(
            "BGBACKUP_CACHE_DIR", unit: "CACHE_DIRECTORY", root: "/var/cache/bgbackup", xdg: "XDG_CACHE_HOME", home: ".cache")
    }

    private func directory(_ own: String, unit: String, root: String, xdg: String, home: String) -> String? {
        if let path = environment(own) ?? environment(unit) { return path }
        if geteuid() == 0 { return root }
        if let base = environment(xdg) { return "\(base)/bgbackup" }
        return environment("HOME").map { "\($0)/\(home)/bgbackup" }
    }

    /// Who this node is to a store that lets one node write: kept with its state.
    var identity: WriterIdentity? {
        guard let directory = stateDirectory else { return nil }
        return NodeIdentity.id(in: directory).map {
            WriterIdentity(id: $0, node: Self.hostName, lockPath: "\(directory)/writer.lock")
        }
    }

    static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Seconds by which local time is ahead of UTC.
    static var zoneOffset: Double {
        var seconds = time(nil)
        var parts = tm()
        localtime_r(&seconds, &parts)
        return Double(parts.tm_gmtoff)
    }

    /// Whether what a policy protects is on this machine.
    static func isHere(_ policy: Policy) -> Bool { access(policy.source.path, F_OK) == 0 }

    // MARK: - Secrets

    var hasPassword: Bool {
        environment("BGBACKUP_PASSWORD_FILE") != nil || environment("BGBACKUP_PASSWORD_COMMAND") != nil
            || credential("bgbackup.password") != nil
    }

    func writerKey(_ given: String?) throws -> KeyRing? {
        guard let path = given ?? environment("BGBACKUP_WRITER_KEY_FILE") ?? credential("bgbackup.writer-key") else {
            return nil
        }
        return try KeyRing(writerKeyFile: String(decoding: try secret(in: path), as: UTF8.self))
    }

    /// The password's bytes, from the first place that has one.
    func password(new: Bool = false) async throws -> [UInt8] {
        if let path = options.passwordFile ?? environment("BGBACKUP_PASSWORD_FILE") {
            return try trimmed(try secret(in: path), path)
        }
        if let command = environment("BGBACKUP_PASSWORD_COMMAND") { return try await password(command: command) }
        if let path = credential("bgbackup.password") { return try trimmed(try secret(in: path), path) }
        if isatty(STDIN_FILENO) == 1 { return try ask(new: new) }
        throw BackupError(
            .noPassword, "no password is given",
            hint: "Use --password-file, BGBACKUP_PASSWORD_FILE, BGBACKUP_PASSWORD_COMMAND or the credential bgbackup.password.")
    }

    /// A password that is to be: from the file, or asked for twice on a terminal.
    func newPassword(_ file: String?) throws -> [UInt8] {
        if let file { return try trimmed(try secret(in: file), file) }
        if isatty(STDIN_FILENO) == 1 { return try ask(new: true, "new password: ") }
        throw BackupError(.noPassword, "no new password is given", hint: "Use --new-password-file FILE.")
    }

    func secret(in path: String) throws -> [UInt8] {
        let file = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else {
            throw BackupError(.noPassword, "cannot read \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(file) }
        var status = stat()
        if fstat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o007 != 0 {
            Terminal.note("bgbackup: everybody on this machine can read \(path); chmod 600 is what a secret wants")
        }
        // One byte more than a secret may have. Half of one would be another one.
        var bytes = [UInt8](repeating: 0, count: Self.secretLimit + 1)
        var count = 0
        while count < bytes.count {
            let room = bytes.count - count
            let got = bytes.withUnsafeMutableBytes { read(file, $0.baseAddress! + count, room) }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw BackupError(.noPassword, "cannot read \(path): \(String(cString: strerror(errno)))") }
            if got == 0 { break }
            count += got
        }
        guard count <= Self.secretLimit else {
            throw BackupError(
                .noPassword, "\(path) has more than \(Self.secretLimit >> 10) KiB, which no secret has",
                hint: "Is it the right file?")
        }
        return Array(bytes.prefix(count))
    }

    /// Bytes of a password or key file at the most.
    private static let secretLimit = 64 << 10

    private func trimmed(_ bytes: [UInt8], _ place: String) throws -> [UInt8] {
        let password = bytes.last == 0x0a ? Array(bytes.dropLast()) : bytes
        guard !password.isEmpty else { throw BackupError(.noPassword, "the password in \(place) is empty") }
        return password
    }

    private func password(command: String) async throws -> [UInt8] {
        let result = try await Subprocess.run(
            .path(FilePath("/bin/sh")), arguments: ["-c", command], output: .bytes(limit: 64 << 10), error: .discarded)
        guard result.terminationStatus.isSuccess else {
            throw BackupError(.noPassword, "BGBACKUP_PASSWORD_COMMAND failed: \(result.terminationStatus)")
        }
        return try trimmed(result.standardOutput, "BGBACKUP_PASSWORD_COMMAND's output")
    }

    private func ask(new: Bool, _ question: String = "password of the repository: ") throws -> [UInt8] {
        func prompt(_ text: String) -> [UInt8] {
            guard let answer = getpass(text) else { return [] }
            return Array(String(cString: answer).utf8)
        }
        let first = prompt(question)
        guard !first.isEmpty else { throw BackupError(.noPassword, "the password is empty") }
        if new, prompt("the same again: ") != first { throw BackupError(.noPassword, "the two passwords differ") }
        return first
    }

    func credential(_ name: String) -> String? {
        guard let directory = environment("CREDENTIALS_DIRECTORY") else { return nil }
        let path = "\(directory)/\(name)"
        return access(path, R_OK) == 0 ? path : nil
    }

    private func environment(_ name: String) -> String? { Self.environment(name) }

    /// A variable of the process; an empty one is none.
    static func environment(_ name: String) -> String? {
        guard let value = getenv(name) else { return nil }
        let text = String(cString: value)
        return text.isEmpty ? nil : text
    }
}
