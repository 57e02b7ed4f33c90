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
        switch error.kind {
        case .full:
            BackupError(
                .storeFull, "the repository's store has no space left",
                hint: "Nothing committed is lost. Make room, then run the backup again: what was stored is found.",
                cause: error)
        case .denied:
            BackupError(.storeFailed, "the repository's store refused", hint: "Check the permissions.", cause: error)
        case .notFound, .exists, .tooLarge, .failed:
            BackupError(.storeFailed, "the repository's store failed", cause: error)
        }
    }

    private static func isParserError(_ error: any Error) -> Bool {
        let type = String(reflecting: type(of: error))
        return type.hasPrefix("ArgumentParser.")
    }
}
