// A file.
@testable import BackupRepository
