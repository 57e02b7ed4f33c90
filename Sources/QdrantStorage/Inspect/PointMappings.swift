/// The points of an appendable segment, from the log of its id changes: insert
/// of a number (1) or UUID (2) with the inner id, delete of a number (3) or UUID
/// (4) without (qdrant lib/segment/src/id_tracker/mutable_id_tracker/change.rs).
enum PointMappings {
    /// Bytes of a log that is read; what is larger is estimated.
    static let sizeLimit = 64 << 20

    private struct Identity: Hashable {
        let high: UInt64
        let low: UInt64
        let isUUID: Bool
    }

    /// - Returns: points that are there after all changes; a torn tail is cut off, as at load. Nil for another format.
    static func count(_ log: [UInt8]) -> UInt64? {
        var live: Set<Identity> = []
        let isKnown = log.withUnsafeBytes { bytes -> Bool in
            var offset = 0
            while offset < bytes.count {
                let kind = bytes[offset]
                guard (1...4).contains(kind) else { return false }
                let isUUID = kind % 2 == 0
                let size = 1 + (isUUID ? 16 : 8) + (kind <= 2 ? 4 : 0)
                guard offset + size <= bytes.count else { return true }
                let low = bytes.loadUnaligned(fromByteOffset: offset + 1, as: UInt64.self)
                let high = isUUID ? bytes.loadUnaligned(fromByteOffset: offset + 9, as: UInt64.self) : 0
                let point = Identity(high: high, low: low, isUUID: isUUID)
                if kind <= 2 { live.insert(point) } else { live.remove(point) }
                offset += size
            }
            return true
        }
        return isKnown ? UInt64(live.count) : nil
    }
}
