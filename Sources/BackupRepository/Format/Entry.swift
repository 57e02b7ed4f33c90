/// One line of a manifest: a name of the volume and what it is.
public struct Entry: Sendable, Equatable {
    public struct Metadata: Sendable, Equatable {
        /// Permission bits, 12 of them.
        public var mode: UInt32
        public var owner: UInt32
        public var group: UInt32
        /// Nanoseconds since 1970.
        public var modified: Int64
        public var attributes: [Attribute]

        public init(mode: UInt32, owner: UInt32, group: UInt32, modified: Int64, attributes: [Attribute]) {
            self.mode = mode & 0o7777
            self.owner = owner
            self.group = group
            self.modified = modified
            self.attributes = attributes
        }
    }

    /// An extended attribute; ACLs are two of them.
    public struct Attribute: Sendable, Hashable {
        public var name: [UInt8]
        public var value: [UInt8]
        public init(name: [UInt8], value: [UInt8]) {
            self.name = name
            self.value = value
        }
    }

    public enum Kind: Sendable, Equatable {
        case file(Metadata, Content)
        case directory(Metadata)
        case symlink(Metadata, target: [UInt8])
        case hardLink(to: [UInt8])
    }

    /// Relative to the volume's root, which is the empty path.
    public var path: [UInt8]
    public var kind: Kind

    public init(path: [UInt8], kind: Kind) {
        self.path = path
        self.kind = kind
    }

    static let sizeLimit = 1 << 20
    static let pathLimit = 65535

    func encode(after previous: [UInt8], to writer: inout ByteWriter) {
        switch kind {
        case .file: writer.u8(1)
        case .directory: writer.u8(2)
        case .symlink: writer.u8(3)
        case .hardLink: writer.u8(4)
        }
        let shared = zip(previous, path).prefix { $0 == $1 }.count
        writer.varint(shared)
        writer.sized(path[shared...])
        switch kind {
        case .file(let metadata, let content):
            metadata.encode(to: &writer)
            writer.sized(content.encoded)
        case .directory(let metadata):
            metadata.encode(to: &writer)
        case .symlink(let metadata, let target):
            metadata.encode(to: &writer)
            writer.sized(target)
        case .hardLink(let target):
            writer.sized(target)
        }
    }

    init(from reader: inout ByteReader, after previous: [UInt8]) throws {
        let type = try reader.u8()
        let shared = try reader.varint(limit: previous.count)
        path = previous[..<shared] + Array(try reader.sized(limit: Self.pathLimit - shared))
        switch type {
        case 1:
            let metadata = try Metadata(from: &reader)
            kind = .file(metadata, try Content(decoding: reader.sized(limit: Self.sizeLimit)))
        case 2: kind = .directory(try Metadata(from: &reader))
        case 3:
            let metadata = try Metadata(from: &reader)
            let target = Array(try reader.sized(limit: Self.pathLimit))
            guard !target.isEmpty, !target.contains(0) else { throw FormatError("a symbolic link leads to no path") }
            kind = .symlink(metadata, target: target)
        case 4: kind = .hardLink(to: Array(try reader.sized(limit: Self.pathLimit)))
        default: throw FormatError("an entry is of an unknown type")
        }
    }
}

extension Entry.Metadata {
    func encode(to writer: inout ByteWriter) {
        writer.varint(Int(mode))
        writer.varint(Int(owner))
        writer.varint(Int(group))
        writer.zigzag(modified)
        writer.varint(attributes.count)
        for attribute in attributes {
            writer.sized(attribute.name)
            writer.sized(attribute.value)
        }
    }

    init(from reader: inout ByteReader) throws {
        mode = UInt32(try reader.varint(limit: 0o7777))
        owner = UInt32(try reader.varint(limit: Int(UInt32.max)))
        group = UInt32(try reader.varint(limit: Int(UInt32.max)))
        modified = try reader.zigzag()
        attributes = try (0..<(try reader.elementCount(of: 2))).map { _ in
            let name = Array(try reader.sized(limit: 255))
            guard !name.isEmpty, !name.contains(0) else { throw FormatError("an attribute has no name") }
            return Entry.Attribute(name: name, value: Array(try reader.sized(limit: 65536)))
        }
    }
}

/// Entries one behind the other, as one metadata block.
public enum ManifestChunk {
    /// Bytes at which a writer ends a chunk at the latest.
    static let target = 256 << 10

    static func decode(_ bytes: [UInt8], _ body: (Entry) throws -> Void) throws {
        var reader = ByteReader(bytes)
        var previous: [UInt8] = []
        while !reader.isAtEnd {
            let entry = try Entry(from: &reader, after: previous)
            previous = entry.path
            try body(entry)
        }
    }
}

/// Cuts a stream of entries into chunks whose borders depend on names, not on
/// counts, so that one new file changes one chunk and the others stay known.
public struct ManifestChunker {
    private var writer = ByteWriter()
    private var previous: [UInt8] = []

    public init() {}

    /// Adds an entry; returns a chunk when it ends one.
    public mutating func add(_ entry: Entry) throws -> [UInt8]? {
        let before = writer.bytes.count
        var ended: [UInt8]?
        var single = ByteWriter()
        entry.encode(after: previous, to: &single)
        if before > 0, before + single.bytes.count > ManifestChunk.target * 2 {
            ended = finish()
            single = ByteWriter()
            entry.encode(after: previous, to: &single)
        }
        guard single.bytes.count <= Entry.sizeLimit else { throw FormatError("its metadata is larger than an entry may be") }
        writer.raw(single.bytes)
        previous = entry.path
        // FNV-1a, one path in 256 ends a chunk; only its low bits are mixed well.
        let hash = entry.path.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        let full = writer.bytes.count >= ManifestChunk.target || hash & 0xff == 0
        return ended ?? (full ? finish() : nil)
    }

    /// The last chunk, or nil when nothing is left.
    public mutating func finish() -> [UInt8]? {
        guard !writer.bytes.isEmpty else { return nil }
        defer {
            writer = ByteWriter()
            previous = []
        }
        return writer.bytes
    }
}

/// Accepts the entries of a manifest one by one and refuses what no honest
/// writer makes: a hostile manifest must not name a path twice, out of order,
/// outside the volume, or below something that is no directory.
public struct ManifestValidator {
    private var previous: [UInt8]?
    /// Directories from the root to the last entry.
    private var open: [[UInt8]] = []
    private var linkable: Set<[UInt8]> = []

    public init() {}

    /// Whether a file of this path was accepted.
    func hasFile(_ path: [UInt8]) -> Bool { linkable.contains(path) }

    /// Whether this is one of the directories that the last entry is in, or is.
    func isInside(_ directory: ArraySlice<UInt8>) -> Bool { open.contains { $0[...] == directory } }

    /// Call after the last entry.
    public func finish() throws {
        guard previous != nil else { throw FormatError("the manifest is empty") }
    }

    public mutating func accept(_ entry: Entry) throws {
        let path = entry.path
        if path.isEmpty {
            guard previous == nil, case .directory = entry.kind else {
                throw FormatError("the root is no directory or not first")
            }
            open = [[]]
        } else {
            guard previous != nil else { throw FormatError("the root is missing") }
            try checkComponents(path)
            guard comparePaths(previous!, path) < 0 else {
                throw FormatError("the path \(entry.path.count) bytes long stands twice or out of order")
            }
            let parent = path.lastIndex(of: slash).map { Array(path[..<$0]) } ?? []
            while let last = open.last, last != parent { open.removeLast() }
            guard !open.isEmpty else { throw FormatError("a path's parent is no directory of the manifest") }
            if case .directory = entry.kind { open.append(path) }
        }
        if case .hardLink(let target) = entry.kind {
            guard linkable.contains(target) else { throw FormatError("a hard link leads to no file before it") }
        }
        if case .file = entry.kind { linkable.insert(path) }
        previous = path
    }

    private func checkComponents(_ path: [UInt8]) throws {
        guard !path.contains(0) else { throw FormatError("a path holds a NUL") }
        for part in path.split(separator: slash, omittingEmptySubsequences: false) {
            guard !part.isEmpty, !part.elementsEqual(".".utf8), !part.elementsEqual("..".utf8), part.count <= 255 else {
                throw FormatError("a path has a component that is empty, too long, '.' or '..'")
            }
        }
    }
}

private let slash = UInt8(ascii: "/")

/// Order of paths: component by component as byte strings. Below 0, 0 or above.
public func comparePaths(_ left: [UInt8], _ right: [UInt8]) -> Int {
    for (a, b) in zip(left, right) where a != b {
        // The separator sorts before every other byte, so that a directory's
        // content follows it directly.
        if a == slash { return -1 }
        if b == slash { return 1 }
        return a < b ? -1 : 1
    }
    return left.count - right.count
}

extension Entry {
    /// The packs that hold a file's blocks, or the list of them.
    var packs: Set<ObjectID> {
        guard case .file(_, let content) = kind else { return [] }
        return switch content.layout {
        case .inline(let part): part.extents.packs
        case .indirect(_, let parts): parts.packs
        }
    }
}
