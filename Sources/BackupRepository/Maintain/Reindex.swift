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

    /// Writes the missing or altered copy of the configuration and of key slots
    /// anew from the good one. Returns the names of what was written.
    public func repairCopies(dryRun: Bool) async throws -> [String] {
        var repaired: [String] = []
        var good: [UInt8]?
        var bad: [String] = []
        for name in Configuration.names {
            let bytes = try await existing(name, limit: Configuration.sizeLimit)
            if let bytes, (try? UnverifiedConfiguration(parsing: bytes).isGenuine(keys)) == true {
                good = good ?? bytes
            } else {
                bad.append(name)
            }
        }
        if let good { repaired += try await write(good, to: bad, dryRun) }
        // Which of two differing slots is good only its password tells: a
        // missing copy is made again, a differing one is left to the operator.
        for slot in Set(try await store.list("v1/keys/").map { String($0.name.dropLast(2)) }).sorted() {
            let copies = [slot + ".a", slot + ".b"]
            var found: [[UInt8]] = []
            var missing: [String] = []
            for name in copies {
                if let bytes = try await existing(name, limit: KeySlot.sizeLimit),
                    (try? JSONDecoder().decode(KeySlot.self, from: Data(bytes))) != nil
                {
                    found.append(bytes)
                } else {
                    missing.append(name)
                }
            }
            if let good = found.first { repaired += try await write(good, to: missing, dryRun) }
        }
        return repaired
    }

    /// Replaces what the configuration records about the store. Needs the owner's
    /// keys: a writer must not change it.
    /// - Returns: whether it said something else
    public func record(probe: [String: String]) async throws -> Bool {
        guard keys.canRead else { return false }
        func essence(_ record: [String: String]) -> [String: String] { record.filter { $0.key != "probed" } }
        guard essence(probe) != essence(configuration.probe) else { return false }
        var changed = configuration
        changed.probe = probe
        let bytes = AlignedBuffer(copying: try changed.encoded(keys))
        // One copy after the other: at each moment one of them is whole.
        for name in Configuration.names { try await store.put(name, bytes, ifAbsent: false) }
        return true
    }

    private func existing(_ name: String, limit: Int) async throws -> [UInt8]? {
        do {
            return try await store.get(name, .all, limit: limit).array
        } catch let error as StoreError where error.kind == .notFound || error.kind == .tooLarge {
            return nil
        }
    }

    private func write(_ bytes: [UInt8], to names: [String], _ dryRun: Bool) async throws -> [String] {
        if !dryRun { for name in names { try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: false) } }
        return names
    }

    /// Lists in new index objects what no readable index lists, from the packs'
    /// trailers. Writes new objects first and only then takes away index
    /// objects that cannot be read; packs and snapshots are never touched.
    public func reindex(dryRun: Bool) async throws -> ReindexReport {
        var report = ReindexReport()
        let (listed, damaged) = try await listedPacks()
        report.damagedIndexes = damaged
        var object = IndexObject()
        var blocks = 0
        for info in try await store.list("v1/packs/") {
            guard let id = ObjectID(hex: info.name.suffix(32)), !listed.contains(id) else { continue }
            do {
                let pack = try await reader.pack(id)
                object.packs.append(IndexObject.Pack(id: id, size: pack.size, trailer: pack.trailer))
                blocks += pack.trailer.ids.count
                report.packs += 1
            } catch let error as BackupError where error.code == .damaged {
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
