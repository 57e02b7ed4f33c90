/// A tar archive as an input describes it, with checksums that hold: what the
/// fuzzer would not guess.
struct TarBuilder {
    private(set) var bytes: [UInt8] = []

    private static let names = [
        "", "collections/c/config.json", "collections/c/0/", "config.json", "0/replica_state.json", "0/segments/u/files/",
        "0/segments/u.tar", "0/segments/u/snapshot/files/", "0/segments/", "c.snapshot", "c.snapshot/", "c.snapshot/config.json",
        "segments/u/",
        "1/", "./", "../", "/",
        "collections/", "tmp/", ".bgbackup-incomplete", "aliases/data.json", "version.info",
    ]
    private static let ends = ["", "", "/files/a", "/snapshot/files/a", "/", "/config.json", ".tar", ".snapshot"]
    private static let types = Array("0000005512xgLKS67".utf8)
    private static let records = [
        "path=", "size=", "linkpath=", "mtime=", "uid=", "GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=",
        "GNU.sparse.realsize=", "GNU.sparse.map=", "GNU.sparse.size=", "SCHILY.xattr.user.a=", "SCHILY.acl.access=",
        "LIBARCHIVE.xattr.b=", "SCHILY.acl.default=user::rwx,",
    ]
    private static let contents = [
        #"{"collections_mapping":{"c":"c.snapshot"},"collections_aliases":{"a":"c"}}"#,
        #"{"is_local":true,"this_peer_id":7,"peers":{"7":"Active"}}"#,
        "1\n0\n5\n", "2\n0\n5\n512\n5\n",
    ]

    private typealias Members = [(name: String, content: [UInt8])]

    private static let replicas = Array(contents[1].utf8)
    private static let volume: Members = [
        ("collections/c/config.json", Array("{}".utf8)), ("collections/c/0/replica_state.json", replicas),
        ("raft_state.json", Array("{}".utf8)),
    ]
    private static let collection: Members = [
        ("config.json", Array("{}".utf8)), ("version.info", Array("0.4.2".utf8)), ("0/replica_state.json", replicas),
        ("0/segments/u.tar", archive([("snapshot/files/segment.json", Array("{}".utf8))])),
        ("0/segments/v/files/segment.json", []),
    ]
    private static let storage: Members = [
        ("config.json", Array(contents[0].utf8)), ("c.snapshot", archive(collection)), ("d.snapshot", archive(collection)),
    ]

    private static func archive(_ members: Members) -> [UInt8] {
        var builder = TarBuilder()
        builder.add(members, leaving: 0)
        return builder.bytes + [UInt8](repeating: 0, count: 1024)
    }

    /// - Parameter mask: which members to leave out
    private mutating func add(_ members: Members, leaving mask: UInt8) {
        for (index, member) in members.enumerated() where mask >> index & 1 == 0 {
            var nothing: ArraySlice<UInt8> = []
            header(Array(member.name.utf8), UInt8(ascii: "0"), member.content.count, &nothing)
            bytes += member.content + [UInt8](repeating: 0, count: -member.content.count & 511)
        }
    }

    /// A sound archive of one of the kinds that are imported, less what the
    /// input leaves out and more what it describes.
    mutating func build(_ input: inout ArraySlice<UInt8>) {
        let kinds: [Members] = [[], Self.volume, Self.collection, Self.storage]
        add(kinds[Int(input.popFirst() ?? 0) % kinds.count], leaving: input.popFirst() ?? 0)
        while let operation = input.popFirst() {
            let type = Self.types[Int(operation) % Self.types.count]
            let content = content(type, &input)
            let name = Self.name(&input)
            var size = content.count
            if operation & 0x80 != 0 { size = Int(input.popFirst() ?? 0) << Int((input.popFirst() ?? 0) % 56) }
            header(name, type, size, &input)
            bytes += content + [UInt8](repeating: 0, count: -content.count & 511)
        }
        bytes += [UInt8](repeating: 0, count: 1024)
    }

    private static func take(_ input: inout ArraySlice<UInt8>) -> [UInt8] {
        let count = min(Int(input.popFirst() ?? 0) & 63, input.count)
        defer { input = input.dropFirst(count) }
        return Array(input.prefix(count))
    }

    private static func name(_ input: inout ArraySlice<UInt8>) -> [UInt8] {
        let which = input.popFirst() ?? 0
        let start = Array(names[Int(which & 0x7f) % names.count].utf8)
        guard which & 0x80 == 0 else { return start }
        return start + take(&input) + Array(ends[Int(input.popFirst() ?? 0) % ends.count].utf8)
    }

    private func content(_ type: UInt8, _ input: inout ArraySlice<UInt8>) -> [UInt8] {
        switch type {
        case UInt8(ascii: "x"), UInt8(ascii: "g"):
            var records: [UInt8] = []
            for _ in 0..<(input.popFirst() ?? 0) % 6 {
                let key = Self.records[Int(input.popFirst() ?? 0) % Self.records.count]
                records += Self.record(Array(key.utf8) + Self.take(&input))
            }
            return records
        case UInt8(ascii: "L"), UInt8(ascii: "K"): return Self.name(&input) + [0]
        default:
            switch (input.popFirst() ?? 0) % 4 {
            case 0: return []
            // The archive so far, as one inside it.
            case 1: return bytes.count < 16384 ? bytes + [UInt8](repeating: 0, count: 1024) : []
            case 2: return Array(Self.contents[Int(input.popFirst() ?? 0) % Self.contents.count].utf8)
            default: return Self.take(&input)
            }
        }
    }

    /// "LENGTH KEY=VALUE\n", the length its own included.
    private static func record(_ text: [UInt8]) -> [UInt8] {
        var count = text.count + 3
        while "\(count)".utf8.count + text.count + 2 > count { count += 1 }
        return Array("\(count) ".utf8) + text + [0x0a]
    }

    private mutating func header(_ name: [UInt8], _ type: UInt8, _ size: Int, _ input: inout ArraySlice<UInt8>) {
        var block = [UInt8](repeating: 0, count: 512)
        func put(_ text: [UInt8], _ offset: Int, _ limit: Int) {
            for (index, byte) in text.prefix(limit).enumerated() { block[offset + index] = byte }
        }
        put(name, 0, 100)
        put(Array("0000644\0".utf8), 100, 8)
        put(Array("0000000\0".utf8), 108, 8)
        put(Array("0000000\0".utf8), 116, 8)
        if size < 1 << 33 {
            let digits = String(size, radix: 8)
            put(Array((String(repeating: "0", count: 11 - digits.count) + digits).utf8), 124, 11)
        } else {
            // Binary, as GNU tar writes what eleven digits cannot say.
            block[124] = 0x80
            for index in 0..<8 { block[128 + index] = UInt8(truncatingIfNeeded: size >> ((7 - index) * 8)) }
        }
        put(Array("00000000000\0".utf8), 136, 12)
        block[156] = type
        if type == UInt8(ascii: "1") || type == UInt8(ascii: "2") { put(Self.name(&input), 157, 100) }
        put(Array((type == UInt8(ascii: "S") ? "ustar  \0" : "ustar\u{0}00").utf8), 257, 8)
        if type == UInt8(ascii: "S") {
            // GNU's old sparse map: four pairs, and the real size.
            for offset in stride(from: 386, to: 482, by: 12) { put(octal(&input), offset, 12) }
            block[482] = input.popFirst() ?? 0
            put(octal(&input), 483, 12)
        }
        let changed = Int(input.popFirst() ?? 0)
        if changed < 64, let value = input.popFirst() { block[(changed * 8 + 100) % 512] = value }
        put([UInt8](repeating: 0x20, count: 8), 148, 8)
        let sum = String(block.reduce(0) { $0 + Int($1) }, radix: 8)
        put(Array((String(repeating: "0", count: max(6 - sum.count, 0)) + sum + "\0 ").utf8), 148, 8)
        bytes += block
    }

    private func octal(_ input: inout ArraySlice<UInt8>) -> [UInt8] {
        let digits = String(Int(input.popFirst() ?? 0) << Int((input.popFirst() ?? 0) % 24), radix: 8)
        return Array((String(repeating: "0", count: max(11 - digits.count, 0)) + digits).utf8)
    }
}
