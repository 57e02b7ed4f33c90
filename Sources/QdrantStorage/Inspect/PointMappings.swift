/// The points of an appendable segment, from the log of its id changes: insert
/// of a number (1) or UUID (2) with the inner id, delete of a number (3) or UUID
/// (4) without (qdrant lib/segment/src/id_tracker/mutable_id_tracker/change.rs).
enum PointMappings {
    /// Bytes of a log that is read; what is larger is estimated.
    static let sizeLimit = 64 << 20

    /// - Parameter log: of at most `sizeLimit` bytes
    /// - Returns: points that are there after all changes; a torn tail is cut off, as at load. Nil for another format.
    static func count(_ log: [UInt8]) -> UInt64? {
        precondition(log.count <= sizeLimit, "a log of mappings is larger than what is read of one")
        return log.withUnsafeBytes { bytes in
            guard let changes = countChanges(bytes) else { return nil }
            var points = PointTable(bytes, room: changes)
            var offset = 0
            for _ in 0..<changes {
                points.take(offset)
                offset += size(of: bytes[offset])
            }
            return UInt64(points.live)
        }
    }

    private static func countChanges(_ log: UnsafeRawBufferPointer) -> Int? {
        var (offset, changes) = (0, 0)
        while offset < log.count {
            guard (1...4).contains(log[offset]) else { return nil }
            offset += size(of: log[offset])
            if offset <= log.count { changes += 1 }
        }
        return changes
    }

    private static func size(of kind: UInt8) -> Int { 1 + (kind % 2 == 0 ? 16 : 8) + (kind <= 2 ? 4 : 0) }
}

/// The last change of each point, found by its id.
///
/// A `Set` of ids took nine tenths of an inspection, with SipHash and by growing
/// (docs/benchmarks.md); this is filled once, keeps four bytes for a point, and
/// its seeds are random, so that no choice of ids makes it slow.
private struct PointTable {
    private let log: UnsafeRawBufferPointer
    /// Where in the log a point's last change stands, plus one; 0 is free.
    private var places: [UInt32]
    private let seeds = (UInt64.random(in: .min ... .max), UInt64.random(in: .min ... .max) | 1)
    /// Points whose last change is an insert.
    private(set) var live = 0

    /// - Parameter room: changes that will come at the most
    init(_ log: UnsafeRawBufferPointer, room: Int) {
        self.log = log
        var slots = 16
        while slots < room + room / 2 { slots *= 2 }
        places = Array(repeating: 0, count: slots)
    }

    /// Takes the change at this place in the log.
    mutating func take(_ offset: Int) {
        let id = self.id(offset)
        var slot = hash(id) & (places.count - 1)
        while places[slot] != 0 {
            let before = Int(places[slot]) - 1
            if self.id(before) == id, log[before] % 2 == log[offset] % 2 {
                live -= isInsert(before) ? 1 : 0
                break
            }
            slot = (slot + 1) & (places.count - 1)
        }
        places[slot] = UInt32(offset + 1)
        live += isInsert(offset) ? 1 : 0
    }

    private func isInsert(_ offset: Int) -> Bool { log[offset] <= 2 }

    private func id(_ offset: Int) -> (low: UInt64, high: UInt64) {
        let low = log.loadUnaligned(fromByteOffset: offset + 1, as: UInt64.self)
        let isUUID = log[offset] % 2 == 0
        return (low, isUUID ? log.loadUnaligned(fromByteOffset: offset + 9, as: UInt64.self) : 0)
    }

    /// Multiply and fold, as wyhash does.
    private func hash(_ id: (low: UInt64, high: UInt64)) -> Int {
        let product = (id.low ^ seeds.0).multipliedFullWidth(by: id.high ^ seeds.1)
        return Int(truncatingIfNeeded: product.high ^ product.low)
    }
}
