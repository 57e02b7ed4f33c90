import BackupBase
import BackupRepository
import VolumeIO

/// What the members of an archive make of a volume: names in any order become
/// a tree, or are refused. Nothing here touches a file system.
struct ArchiveTree {
    enum Item {
        case directory(Entry.Metadata)
        case symlink(Entry.Metadata, target: [UInt8])
        /// A name of the file of this number; files with several are hard links.
        case file(number: Int)
    }

    private(set) var items: [[UInt8]: Item] = [:]
    /// Of the files, by number.
    private var files: [Entry.Metadata] = []

    /// Components that a path may have: deeper than any volume, and no reason to walk for long.
    private static let deepest = 1024

    /// A member's name as a path below the archive's root: without "./", without
    /// a slash at its end. Throws for what leads elsewhere.
    static func path(_ name: [UInt8]) throws -> [UInt8] {
        func refuse(_ why: String) -> BackupError {
            BackupError(.damaged, "the archive holds \(printable(name.prefix(300))), which \(why)")
        }
        guard name.first != slash else { throw refuse("is an absolute path") }
        guard name.count <= 65535 else { throw refuse("is too long for a path") }
        var parts: [ArraySlice<UInt8>] = []
        for part in name.split(separator: slash) where !part.elementsEqual(".".utf8) {
            guard !part.elementsEqual("..".utf8) else { throw refuse("leads out of it") }
            guard part.count <= 255 else { throw refuse("has a component longer than 255 bytes") }
            parts.append(part)
        }
        guard parts.count <= deepest else { throw refuse("is nested too deeply") }
        return Array(parts.joined(separator: [slash]))
    }

    /// Adds a member under its path.
    /// - Returns: the number of a file whose content follows
    mutating func add(_ member: ArchiveMember, at path: [UInt8], linkTarget: ([UInt8]) throws -> [UInt8]) throws -> Int? {
        func refuse(_ why: String) -> BackupError {
            BackupError(.damaged, "the archive holds \(path.isEmpty ? "." : printable(path.prefix(300))) \(why)")
        }
        let metadata = Entry.Metadata(
            mode: member.mode, owner: member.owner, group: member.group, modified: member.modified,
            attributes: member.attributes.map { Entry.Attribute(name: $0.name, value: $0.value) })
        if let earlier = items[path] {
            // Only a directory may come again: archives of parts repeat the way to them.
            guard case .directory = earlier, case .directory = member.kind else { throw refuse("twice") }
        }
        switch member.kind {
        case .directory: items[path] = .directory(metadata)
        case .symlink(let target):
            guard !path.isEmpty, !target.contains(0), target.count <= 65535 else { throw refuse("as a link that none can be") }
            items[path] = .symlink(metadata, target: target)
        case .file:
            guard !path.isEmpty else { throw refuse("as a file") }
            files.append(metadata)
            items[path] = .file(number: files.count - 1)
            return files.count - 1
        case .hardLink(let name):
            guard case .file(let number)? = items[try linkTarget(name)] else {
                throw refuse("as a hard link to no file before it")
            }
            items[path] = .file(number: number)
        case .special:
            throw BackupError(
                .failed, "the archive holds a device, pipe or socket: \(printable(path))", hint: "No volume of Qdrant has one.")
        }
        return nil
    }

    /// Adds a file that the archive does not name, with the owner and time of another.
    mutating func addFile(at path: [UInt8], like other: [UInt8]) -> Int {
        guard case .file(let number)? = items[other] else { preconditionFailure("a file is made like one that is there") }
        files.append(files[number])
        items[path] = .file(number: files.count - 1)
        return files.count - 1
    }

    // MARK: - Making a volume of it

    /// The one directory that holds all else, or nil.
    var topDirectory: [UInt8]? {
        var top: ArraySlice<UInt8>?
        for path in items.keys where !path.isEmpty {
            let first = path.prefix { $0 != slash }
            guard top == nil || top! == first else { return nil }
            top = first
        }
        return top.map { Array($0) }
    }

    func isDirectory(_ path: [UInt8]) -> Bool {
        if case .directory? = items[path] { return true }
        let prefix = path + [slash]
        return items[path] == nil && items.keys.contains { $0.starts(with: prefix) }
    }

    /// Moves everything: `rename` gives a path's new place, or nil to leave it out.
    mutating func move(_ rename: ([UInt8]) -> [UInt8]?) throws {
        var moved: [[UInt8]: Item] = [:]
        for (path, item) in items {
            guard let place = rename(path) else { continue }
            guard moved.updateValue(item, forKey: place) == nil else {
                throw BackupError(.damaged, "the archive holds \(printable(place)) twice")
            }
        }
        items = moved
    }

    /// Entries as a manifest wants them: in order, directories before what they
    /// hold, of a file's names the first with the content.
    /// - Parameter contents: by number, encoded
    func entries(_ contents: [Int: [UInt8]]) throws -> [Entry] {
        let items = try withParents()
        var first: [Int: [UInt8]] = [:]
        return try items.keys.sorted { comparePaths($0, $1) < 0 }.map { path in
            switch items[path]! {
            case .directory(let metadata): return Entry(path: path, kind: .directory(metadata))
            case .symlink(let metadata, let target): return Entry(path: path, kind: .symlink(metadata, target: target))
            case .file(let number):
                if let earlier = first[number] { return Entry(path: path, kind: .hardLink(to: earlier)) }
                first[number] = path
                guard let content = contents[number] else {
                    throw BackupError(.failed, "\(printable(path)) has no content: this is a defect of bgbackup")
                }
                return Entry(path: path, kind: .file(files[number], try Content(decoding: content[...])))
            }
        }
    }

    /// With the directories that the archive does not name, as the first thing
    /// in them has owner and time.
    private func withParents() throws -> [[UInt8]: Item] {
        var items = items
        for (path, item) in self.items.sorted(by: { comparePaths($0.key, $1.key) < 0 }) {
            var child = path[...]
            while !child.isEmpty {
                let parent = child.lastIndex(of: slash).map { child[..<$0] } ?? []
                child = parent
                switch items[Array(parent)] {
                case .directory?: break
                case nil: items[Array(parent)] = .directory(likely(item))
                default:
                    throw BackupError(
                        .damaged,
                        "the archive holds \(printable(path.prefix(300))) below \(printable(parent)), which is no directory")
                }
            }
        }
        return items
    }

    private func likely(_ item: Item) -> Entry.Metadata {
        var metadata: Entry.Metadata
        switch item {
        case .directory(let found), .symlink(let found, _): metadata = found
        case .file(let number): metadata = files[number]
        }
        metadata.mode = 0o755
        metadata.attributes = []
        return metadata
    }
}

private let slash = UInt8(ascii: "/")
