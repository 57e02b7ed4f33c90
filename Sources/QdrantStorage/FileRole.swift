/// What a file of a Qdrant storage directory holds, for whoever asks what takes up room.
///
/// After Qdrant 1.19's layout (`lib/segment`); what it does not know is `other`.
public enum FileRole: String, Sendable, CaseIterable {
    case vectors
    /// Graphs of vectors and indexes of payload fields.
    case indexes
    case payload
    /// Which point is where, and its version.
    case ids
    /// The write-ahead logs.
    case log
    case other

    /// - Parameter path: relative to the storage root
    public static func of(_ path: [UInt8]) -> FileRole {
        let parts = path.split(separator: UInt8(ascii: "/")).map { String(decoding: $0, as: UTF8.self) }
        guard let name = parts.last else { return .other }
        for part in parts.dropLast() {
            switch part {
            case "wal", "collections_meta_wal": return .log
            case "payload_storage": return .payload
            case "payload_index": return .indexes
            case _ where part.hasPrefix("vector_storage") || part.hasPrefix("sparse_vector_storage"): return .vectors
            case _ where part.hasPrefix("vector_index") || part.hasPrefix("sparse_vector_index"): return .indexes
            default: break
            }
        }
        return name.hasPrefix("id_tracker.") || name.hasPrefix("mutable_id_tracker.") ? .ids : .other
    }
}
