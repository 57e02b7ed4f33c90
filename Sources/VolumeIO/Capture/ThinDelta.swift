import BackupBase

/// Where two thin snapshots of one logical volume differ, as `thin_delta` of
/// thin-provisioning-tools says: it compares which blocks of the pool they map,
/// and reads none. A block that both map is written by nobody.
struct ThinDelta: Equatable {
    /// Bytes of the device, ascending and disjoint.
    private(set) var changed: [Range<Int64>] = []
    /// Bytes of the pool that only the earlier snapshot has.
    private(set) var onlyEarlier: Int64 = 0

    /// A thin pool and its metadata, as the device mapper calls them.
    private struct Pool {
        let device: String
        let metadata: String

        /// A dash in a name of LVM's is two in the device mapper's.
        init(_ group: String, _ pool: String) {
            let (group, pool) = (Self.escaped(group), Self.escaped(pool))
            device = "/dev/mapper/\(group)-\(pool)-tpool"
            metadata = "/dev/mapper/\(group)-\(pool)_tmeta"
        }

        private static func escaped(_ name: String) -> String {
            name.split(separator: "-", omittingEmptySubsequences: false).joined(separator: "--")
        }
    }

    /// - Parameters:
    ///   - earlier: a snapshot in `group`
    ///   - later: another of the same volume
    static func ask(_ group: String, pool: String, earlier: String, later: String) async throws -> ThinDelta {
        let pool = Pool(group, pool)
        func number(_ volume: String) async throws -> String {
            try await SnapshotCommand("lvs", "--noheadings", "-o", "thin_id", "\(group)/\(volume)").run().trimmed
        }
        let (left, right) = (try await number(earlier), try await number(later))
        // A pool in use shows its metadata in a copy that the kernel makes when asked, one at a time.
        try await SnapshotCommand("dmsetup", "message", pool.device, "0", "reserve_metadata_snap").run()
        var command = SnapshotCommand("thin_delta", "-m", "--thin1", left, "--thin2", right, pool.metadata)
        command.outputLimit = 64 << 20
        let answer: Result<String, any Error>
        do { answer = .success(try await command.run()) } catch { answer = .failure(error) }
        try await SnapshotCommand("dmsetup", "message", pool.device, "0", "release_metadata_snap").run()
        guard let delta = ThinDelta(try answer.get(), left: left, right: right) else {
            throw CaptureError("thin_delta said something that is not understood")
        }
        return delta
    }

    /// Reads the XML, of which there is one element a line: `<superblock …
    /// data_block_size="SECTORS" …>`, `<diff left="ID" right="ID">`, then
    /// `<same begin="BLOCK" length="BLOCKS"/>`, `different`, `left_only` and
    /// `right_only` in ascending order (thin-provisioning-tools,
    /// src/thin/delta_visitor.rs). What is in no element neither has: zeros.
    ///
    /// Nil for anything else, and for less than the whole.
    init?(_ xml: String, left: String, right: String) {
        var lines = xml.split(separator: "\n").map { Element($0) }[...]
        guard let superblock = lines.popFirst() ?? nil, superblock.name == "superblock",
            let sectors = superblock.number("data_block_size"), (128...2_097_152).contains(sectors),
            let diff = lines.popFirst() ?? nil, diff.name == "diff",
            diff.attributes["left"] == left, diff.attributes["right"] == right,
            let end = lines.popLast() ?? nil, end.name == "/superblock",
            let last = lines.popLast() ?? nil, last.name == "/diff"
        else { return nil }
        let block = sectors * 512
        var position: Int64 = 0
        for line in lines {
            guard let line, ["same", "different", "left_only", "right_only"].contains(line.name),
                let begin = line.number("begin"), let length = line.number("length"), begin >= position, length > 0,
                begin < 1 << 40, length < 1 << 40
            else { return nil }
            position = begin + length
            if line.name == "same" { continue }
            changed.append(begin * block..<position * block)
            if line.name != "right_only" { onlyEarlier += length * block }
        }
    }

    private struct Element {
        let name: String
        let attributes: [String: String]

        /// One tag: `<name key="value" …>`. No value that is of use here has a space in it.
        init?(_ line: Substring) {
            let text = String(line).trimmed
            guard text.hasPrefix("<"), text.hasSuffix(">") else { return nil }
            var inside = text.dropFirst().dropLast()
            if inside.hasSuffix("/") { inside.removeLast() }
            var fields = inside.split(separator: " ")[...]
            guard let name = fields.popFirst() else { return nil }
            self.name = String(name)
            var attributes: [String: String] = [:]
            for field in fields {
                let parts = field.split(separator: "=", maxSplits: 1)
                guard parts.count == 2, parts[1].count >= 2, parts[1].hasPrefix("\""), parts[1].hasSuffix("\"") else {
                    return nil
                }
                attributes[String(parts[0])] = String(parts[1].dropFirst().dropLast())
            }
            self.attributes = attributes
        }

        func number(_ name: String) -> Int64? { attributes[name].flatMap { Int64($0) } }
    }
}
