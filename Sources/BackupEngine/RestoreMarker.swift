import BackupBase
import BackupRepository
import FoundationEssentials
import VolumeIO

/// `.bgbackup-incomplete` in the target's root: says that the target is not
/// whole yet, of which snapshot it is, and how far it has come. Taken away when
/// everything is on the disk.
public enum RestoreMarker {
    public static let name = ".bgbackup-incomplete"
    static let sizeLimit = 1 << 20

    struct Header: Codable, Equatable {
        var warning = "this restore is not complete: run it again with --resume"
        var snapshot: String
        var repository: String
        /// Digest of what was asked for, so that reads are counted alike.
        var plan: String
        /// How reads are put in order; marks of another order count for nothing.
        var order: Int? = Self.currentOrder
        /// Of a refresh, the snapshot that the target held.
        var refreshes: String?

        static let currentOrder = 2
    }

    /// Whether a path of the target is the marker, or the marker being written.
    static func isOwn(_ path: [UInt8]) -> Bool {
        path == Array(name.utf8) || path == Array((name + ".new").utf8)
    }

    /// Line 1 of the marker.
    static func firstLine(_ header: Header) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        return Array(try encoder.encode(header)) + [0x0a]
    }

    /// The header, and how many reads of the plan were on the disk.
    static func parse(_ bytes: [UInt8]) -> (header: Header, done: Int)? {
        let lines = bytes.split(separator: 0x0a)
        guard let first = lines.first, let header = try? JSONDecoder().decode(Header.self, from: Data(first)) else {
            return nil
        }
        // The last whole line counts; a torn one is not followed by a line feed.
        let whole = bytes.last == 0x0a ? lines.dropFirst() : lines.dropFirst().dropLast()
        let done = whole.last.flatMap { line -> Int? in
            let words = String(decoding: line, as: UTF8.self).split(separator: " ")
            return words.count == 2 && words[0] == "done" ? Int(words[1]) : nil
        }
        return (header, done ?? 0)
    }
}
