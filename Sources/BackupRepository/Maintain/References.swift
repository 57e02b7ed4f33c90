import BackupBase
import ObjectStorage

extension Repository {
    /// The packs that a snapshot needs: those of its manifest, its block lists and its files.
    func packs(of snapshot: Snapshot) async throws -> Set<ObjectID> {
        var needed = snapshot.manifest.packs
        try await forEachEntry(of: snapshot) { entry in
            guard case .file(_, let content) = entry.kind else { return }
            needed.formUnion(entry.packs)
            guard case .indirect = content.layout else { return }
            try await forEachPart(of: content) { part, _ in needed.formUnion(part.extents.packs) }
        }
        return needed
    }

    /// What is in the store, by kind.
    public struct Statistics: Sendable {
        public struct Kind: Sendable {
            public var objects = 0
            public var bytes: Int64 = 0
        }
        /// "packs", "index", "snapshots", "keys", "config", "writers", "notes", "scratch", "other".
        public var kinds: [String: Kind] = [:]
    }

    public func statistics() async throws -> Statistics {
        var statistics = Statistics()
        for info in try await store.list("v1/") + store.list("tmp/") {
            let parts = info.name.split(separator: "/")
            let folder = parts.count > 2 ? String(parts[1]) : ""
            let kind =
                if parts.first == "tmp" { "scratch" } else if Configuration.names.contains(info.name) {
                    "config"
                } else if ["packs", "index", "snapshots", "keys", "writers", "notes"].contains(folder) { folder } else { "other" }
            statistics.kinds[kind, default: .init()].objects += 1
            statistics.kinds[kind, default: .init()].bytes += Int64(info.size)
        }
        return statistics
    }
}
