import BackupBase
import BackupEngine
import BackupRepository
import QdrantStorage

extension FingerprintRecord {
    /// One line for people.
    var summary: String {
        guard let server = try? server else { return "cannot be read" }
        let points = server.collections.reduce(0) { $0 + $1.points }
        let apart = "\(formatDuration(abs(seconds))) \(seconds < 0 ? "before" : "after") the capture"
        return "Qdrant \(server.version), \(points) points in \(server.collections.count) collections, \(apart)"
            + (server.omitted.isEmpty ? "" : ", not all of \(server.omitted.count) collections")
    }
}
