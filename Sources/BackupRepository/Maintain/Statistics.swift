import BackupBase
import ObjectStorage

extension Repository {
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
                } else if ["packs", "index", "snapshots", "keys", "pairs", "writers", "notes"].contains(folder) { folder } else {
                    "other"
                }
            statistics.kinds[kind, default: .init()].objects += 1
            statistics.kinds[kind, default: .init()].bytes += Int64(info.size)
        }
        return statistics
    }
}
