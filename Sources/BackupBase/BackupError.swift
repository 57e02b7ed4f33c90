/// The one error that leaves a module, and what the operator is told.
///
/// Rules: the message is lower case without a full stop and names the object,
/// path or option concerned; the hint is a sentence and says what to do; the
/// cause is the text of whatever failed below. Code that can go on after an
/// error branches on `code`, never on text. Read errors of the source are
/// `SourceError` (VolumeIO) and errors of the repository's store are
/// `StoreError` (ObjectStorage) until a command turns them into this, so that
/// no handler can take one for the other (borg once lost data that way).
public struct BackupError: Error, Sendable, CustomStringConvertible {
    public var code: Code
    public var message: String
    public var hint: String?
    public var cause: String?

    public init(_ code: Code, _ message: String, hint: String? = nil, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
        self.cause = cause.map { "\($0)" }
    }

    public var description: String {
        var text = message
        if let cause { text += ": \(cause)" }
        return text
    }

    /// What went wrong, as scripts and `docs/errors.md` name it.
    public enum Code: String, CaseIterable, Sendable {
        case failed
        case usage
        case wrongPolicy = "wrong-policy"
        case sourceUnreadable = "source-unreadable"
        case incomplete
        case storeFailed = "store-failed"
        case storeFull = "store-full"
        case storeDenied = "store-denied"
        case storeUnreachable = "store-unreachable"
        case targetFailed = "target-failed"
        case targetFull = "target-full"
        case noRepository = "no-repository"
        case repositoryExists = "repository-exists"
        case unsupportedFormat = "unsupported-format"
        case noSnapshot = "no-snapshot"
        case noSuchPath = "no-such-path"
        case busy
        case wrongPassword = "wrong-password"
        case noPassword = "no-password"
        case writeOnlyKey = "write-only-key"
        case held
        case retentionRefused = "retention-refused"
        case immutable
        case captureFailed = "capture-failed"
        case targetNotEmpty = "target-not-empty"
        case targetChanged = "target-changed"
        case drillFailed = "drill-failed"
        case serverUnreachable = "server-unreachable"
        case serverRefused = "server-refused"
        case notQdrant = "not-qdrant"
        case damaged
        case interrupted

        /// The exit status of CLI.md. One table, and the only one.
        public var exitStatus: Int32 {
            switch self {
            case .incomplete: 3
            case .noRepository: 10
            case .busy: 11
            case .wrongPassword, .noPassword, .writeOnlyKey: 12
            case .immutable: 13
            case .captureFailed: 14
            case .targetNotEmpty, .targetChanged: 15
            case .drillFailed: 16
            case .damaged: 17
            case .usage, .wrongPolicy: 64
            case .interrupted: 130
            case .held, .retentionRefused: 1
            case .failed, .sourceUnreadable, .storeFailed, .storeFull, .storeDenied, .storeUnreachable, .targetFailed,
                .targetFull,
                .repositoryExists, .unsupportedFormat, .noSnapshot, .noSuchPath, .serverUnreachable, .serverRefused, .notQdrant:
                1
            }
        }

        /// One sentence for `docs/errors.md`, which a test compares with this list.
        public var explanation: String {
            switch self {
            case .failed: "Something failed that has no code of its own."
            case .usage: "The command line is wrong."
            case .wrongPolicy: "A policy file is wrong."
            case .sourceUnreadable: "The volume to back up cannot be read at all."
            case .incomplete: "A snapshot was made or restored, but some source could not be read or some metadata not set."
            case .storeFailed: "The object store failed to read or write an object."
            case .storeFull: "The object store has no space left."
            case .storeDenied: "The object store refuses the keys, or what they ask for."
            case .storeUnreachable: "The object store does not answer."
            case .targetFailed: "The restore target could not be written."
            case .targetFull: "The restore target has no space left."
            case .noRepository: "There is no repository at this place."
            case .repositoryExists: "There is a repository at this place already."
            case .unsupportedFormat: "The repository was written by a version this one does not know."
            case .noSnapshot: "No snapshot, or more than one, matches the given name."
            case .noSuchPath: "The snapshot does not hold this path."
            case .busy: "Another run holds the lease or the lock."
            case .wrongPassword: "No key slot opens with this password or key."
            case .noPassword: "A password or key is needed and none was given."
            case .writeOnlyKey: "The writer key can make backups and read nothing."
            case .held: "The snapshot is held, and is not forgotten before it is released."
            case .retentionRefused: "Retention would forget too much at once, or of a volume that changed unlike before."
            case .immutable: "The object is locked against change."
            case .captureFailed: "The volume could not be captured at one moment."
            case .targetNotEmpty: "The restore target holds something already."
            case .targetChanged: "The restore target to refresh is not as the restore before left it."
            case .drillFailed: "A drill or validation failed."
            case .serverUnreachable: "A Qdrant server does not answer."
            case .serverRefused: "A Qdrant server answers with an error."
            case .notQdrant: "What answers there is not Qdrant, or not as Qdrant answers."
            case .damaged: "An object of the repository, or an archive, is missing, altered or not what it claims to be."
            case .interrupted: "A signal ended the run."
            }
        }
    }
}
