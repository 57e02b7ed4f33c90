// A file.
import BackupEngine
