import BackupBase
import FoundationEssentials
import QdrantStorage

/// What kind of thing an archive holds, and the volume that becomes of it: as
/// it is, or as Qdrant's own start with a snapshot file would leave it.
struct ImportedVolume {
    /// The archive, for messages.
    let name: String
    let collection: String?
    let isSingleNode: Bool

    /// A replica set's state, as Qdrant keeps it beside a shard. Peer ids are 64 bits unsigned.
    private struct ReplicaState: Codable {
        var is_local: Bool
        var this_peer_id: UInt64
        var peers: [String: String]
    }

    /// `config.json` of a full storage's snapshot.
    private struct StorageConfiguration: Codable {
        /// Snapshot files by collection.
        var collections_mapping: [String: String]
        var collections_aliases: [String: String]
    }

    /// A note of the archive as it is stored.
    func rewrite(_ path: [UInt8], _ bytes: [UInt8]) throws -> [UInt8] {
        guard isSingleNode, path.suffix(18).elementsEqual("replica_state.json".utf8) else { return bytes }
        guard var state = try? JSONDecoder().decode(ReplicaState.self, from: Data(bytes)) else {
            throw BackupError(.damaged, "\(name): \(printable(path)) is no replica state")
        }
        state.peers = ["\(state.this_peer_id)": "Active"]
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return Array(try encoder.encode(state))
    }

    /// The volume's tree, files that it needs besides (by number, path and
    /// content), and how many paths were left out.
    func tree(
        _ found: ArchiveTree, notes: [[UInt8]: [UInt8]]
    ) throws -> (ArchiveTree, added: [(Int, [UInt8], [UInt8])], excluded: Int) {
        var tree = found
        var added: [(Int, [UInt8], [UInt8])] = []
        let configuration = Array("config.json".utf8)
        if !tree.isDirectory(Array("collections".utf8)) {
            if let note = notes[configuration], let full = try? JSONDecoder().decode(StorageConfiguration.self, from: Data(note))
            {
                added = try moveStorage(full, configuration, &tree)
            } else if notes[configuration] != nil, !tree.shards.isEmpty {
                try moveCollection(&tree)
            } else if tree.isDirectory(Array("segments".utf8)) {
                throw BackupError(
                    .failed, "\(name) is a snapshot of one shard, which lacks its collection's configuration",
                    hint: "Recover it through Qdrant's API, or import a snapshot of the collection.")
            } else {
                try moveTop(&tree)
            }
        }
        guard tree.items[Array(RestoreMarker.name.utf8)] == nil else {
            throw BackupError(.failed, "\(name) is of a restore that did not end")
        }
        let excluded = try dropScratch(&tree)
        return (tree, added, excluded)
    }

    // MARK: - Kinds

    private func moveTop(_ tree: inout ArchiveTree) throws {
        let inside = [slash] + Array("collections".utf8)
        guard let top = tree.topDirectory, tree.isDirectory(top + inside) else {
            throw BackupError(
                .failed, "\(name) holds no volume of Qdrant: no directory 'collections' at its top or one below it",
                hint: "Make the archive of the storage directory itself, as 'tar -C STORAGE -cf FILE .' does.")
        }
        try tree.move { path in path.isEmpty ? nil : path == top ? [] : Array(path[(top.count + 1)...]) }
    }

    private func moveCollection(_ tree: inout ArchiveTree) throws {
        guard let collection else {
            throw BackupError(
                .usage, "\(name) is a snapshot of a collection whose name it does not tell", hint: "Give --collection NAME.")
        }
        try check(collection, .usage)
        try checkShards(tree, below: [])
        let place = Array("collections/\(collection)".utf8)
        try tree.move { $0.isEmpty ? place : place + [slash] + $0 }
    }

    private func moveStorage(
        _ full: StorageConfiguration, _ configuration: [UInt8], _ tree: inout ArchiveTree
    ) throws -> [(Int, [UInt8], [UInt8])] {
        var places: [[UInt8]: [UInt8]] = [:]
        for (collection, file) in full.collections_mapping {
            try check(collection, .damaged)
            let folder = Array(file.utf8)
            guard places.updateValue(Array("collections/\(collection)".utf8), forKey: folder) == nil,
                tree.items[folder + Array("/config.json".utf8)] != nil
            else {
                throw BackupError(
                    .damaged, "\(name) holds no snapshot '\(printable(folder))' of collection '\(printable(collection.utf8))'")
            }
            try checkShards(tree, below: folder + [slash])
        }
        // As the server's own start does: aliases beside collections.
        let aliases = Array("aliases/data.json".utf8)
        let content = Array(try JSONEncoder().encode(full.collections_aliases))
        let number = tree.addFile(at: aliases, like: configuration)
        try tree.move { path in
            if path == aliases || path.isEmpty { return path }
            let top = Array(path.prefix { $0 != slash })
            return places[top].map { $0 + path[top.count...] }
        }
        return [(number, aliases, content)]
    }

    private func check(_ collection: String, _ fault: BackupError.Code) throws {
        guard !collection.isEmpty, collection != ".", collection != "..", collection.utf8.count <= 255,
            !collection.utf8.contains(slash), !collection.utf8.contains(0)
        else { throw BackupError(fault, "'\(printable(collection.utf8.prefix(300)))' is no name of a collection") }
    }

    /// A snapshot file has only the shards of the node that made it, and stubs
    /// of the others: a start would not get by without them.
    private func checkShards(_ tree: ArchiveTree, below folder: [UInt8]) throws {
        for shard in tree.shards(below: folder) where !tree.isDirectory(folder + shard + Array("/segments".utf8)) {
            throw BackupError(
                .failed, "\(name) has no data of shard \(printable(shard)), which is on another node",
                hint: "Recover a collection of several nodes through Qdrant's API.")
        }
    }

    private func dropScratch(_ tree: inout ArchiveTree) throws -> Int {
        let excluded = Set(tree.items.keys.filter { ScratchPath.matches($0) })
        guard !excluded.isEmpty else { return 0 }
        try tree.move { path in
            var above = path[...]
            while !above.isEmpty {
                if excluded.contains(Array(above)) { return nil }
                above = above.lastIndex(of: slash).map { above[..<$0] } ?? []
            }
            return path
        }
        return excluded.count
    }
}

extension ArchiveTree {
    fileprivate var shards: Set<[UInt8]> { shards(below: []) }

    /// The numbers that directories below a folder have.
    fileprivate func shards(below folder: [UInt8]) -> Set<[UInt8]> {
        var found: Set<[UInt8]> = []
        for path in items.keys where path.starts(with: folder) {
            let name = path.dropFirst(folder.count).prefix { $0 != slash }
            guard path.count > folder.count + name.count else { continue }
            if SnapshotArchive.isShard(String(decoding: name, as: UTF8.self)) { found.insert(Array(name)) }
        }
        return found
    }
}

private let slash = UInt8(ascii: "/")
