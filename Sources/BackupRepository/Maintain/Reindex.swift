import BackupBase
import FoundationEssentials
import ObjectStorage

extension Repository {
    /// What a repair would do, or did.
    public struct ReindexReport: Sendable {
        /// Packs that no readable index listed.
        public var packs = 0
        /// Index objects that cannot be read.
        public var damagedIndexes: [String] = []
        /// Packs whose trailers cannot be read: they stay as they are.
        public var damagedPacks: [String] = []
        /// Index objects written.
        public var written = 0
    }

    /// Lists in new index objects what no readable index lists, from the packs'
    /// trailers. Writes new objects first and only then takes away index
    /// objects that cannot be read; packs and snapshots are never touched.
    public func reindex(dryRun: Bool) async throws -> ReindexReport {
        if !dryRun { try requireCurrent() }
        var report = ReindexReport()
        let (listed, damagedIndexes) = try await listedPacks()
        report.damagedIndexes = damagedIndexes
        var object = IndexObject()
        var blocks = 0
        for info in try await store.list("v1/packs/") {
            guard let id = ObjectID(hex: info.name.suffix(32)), !listed.contains(id) else { continue }
            do {
                let pack = try await reader.pack(id)
                guard pack.id == id else { continue }
                object.packs.append(IndexObject.Pack(id: id, size: pack.size, trailer: pack.trailer))
                blocks += pack.trailer.ids.count
                report.packs += 1
            } catch let error as BackupError where error.code == .damaged {
                // Pruned meanwhile.
                if PackReader.isMissing(error, id) {
                    try await requireGone(pack: id)
                    continue
                }
                report.damagedPacks.append(info.name)
            }
            if blocks >= 200_000 {
                if !dryRun { try await put(object, &report) }
                object = IndexObject()
                blocks = 0
            }
        }
        if !dryRun, !object.packs.isEmpty { try await put(object, &report) }
        if !dryRun, !report.damagedIndexes.isEmpty { try await remove(report.damagedIndexes) }
        return report
    }

    private func remove(_ damaged: [String]) async throws {
        try await withLease("maintenance") { lease in
            for name in damaged {
                try await lease.confirm()
                do {
                    try await store.delete(name)
                } catch let error as StoreError where error.kind == .locked {
                    throw BackupError(
                        .immutable, "the damaged index \(name) cannot be replaced before its lock ends", cause: error)
                }
            }
        }
    }

    private func put(_ object: IndexObject, _ report: inout ReindexReport) async throws {
        let id = ObjectID.random(ambient)
        try await store.put(
            IndexObject.name(id), try object.sealed(keys, id: id, salt: ambient.random(32)), ifAbsent: true)
        report.written += 1
    }
}
