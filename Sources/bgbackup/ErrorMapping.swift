import BackupBase
import ObjectStorage
import VolumeIO

/// Errors of the layers below as what the operator is told.
enum ErrorMapping {
    /// Nil for errors that are not ours: the argument parser's.
    static func backupError(_ error: any Error) -> BackupError? {
        switch error {
        case let error as BackupError: error
        case let error as StoreError: storeError(error)
        case let error as SourceError: BackupError(.sourceUnreadable, "the source cannot be read", cause: error)
        case let error as TargetError: BackupError(.targetFailed, "the target cannot be written", cause: error)
        case is CancellationError: BackupError(.interrupted, "interrupted")
        default: isParserError(error) ? nil : BackupError(.failed, "\(error)")
        }
    }

    private static func storeError(_ error: StoreError) -> BackupError {
        let (code, message, hint): (BackupError.Code, String, String?) =
            switch error.kind {
            case .full:
                (
                    .storeFull, "the repository's store has no space left",
                    "Nothing committed is lost. Make room, then run the backup again: what was stored is found."
                )
            case .denied: (.storeDenied, "the repository's store refused", "Check the permissions.")
            case .credentials: (.storeDenied, "the repository's store does not let us in", nil)
            case .unreachable: (.storeUnreachable, "the repository's store is not reachable", nil)
            case .noStore: (.noRepository, "the repository's store does not exist", nil)
            case .locked: (.immutable, "the repository's store keeps the object", nil)
            case .usage: (.usage, "the repository's URL is wrong", nil)
            case .notFound, .exists, .tooLarge, .unsupported, .failed: (.storeFailed, "the repository's store failed", nil)
            }
        var mapped = BackupError(code, message, hint: error.hint ?? hint)
        mapped.cause = error.kind == .usage ? error.detail : "\(error)"
        return mapped
    }

    private static func isParserError(_ error: any Error) -> Bool {
        let type = String(reflecting: type(of: error))
        return type.hasPrefix("ArgumentParser.")
    }
}
