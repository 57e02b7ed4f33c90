import BackupBase
import FoundationEssentials
import ObjectStorage

/// What the repository keeps twice: configuration, key slots, closings of key pairs.
extension Repository {
    /// Writes the missing, altered or older copy of the configuration, of key slots
    /// and of closings anew from the good one. Returns the names of what was written.
    public func repairCopies(dryRun: Bool) async throws -> [String] {
        if !dryRun { try requireCurrent() }
        return try await repairConfiguration(dryRun) + repairSlots(dryRun) + repairClosings(dryRun)
    }

    private func repairConfiguration(_ dryRun: Bool) async throws -> [String] {
        var copies: [(name: String, bytes: [UInt8]?, generation: Int?)] = []
        for name in Configuration.names {
            let bytes = try await existing(name, limit: Configuration.sizeLimit)
            let found = bytes.flatMap { try? UnverifiedConfiguration(parsing: $0) }
            copies.append((name, bytes, found?.isGenuine(keys) == true ? found?.generation : nil))
        }
        // That of the newest key pair: a rotation that was killed leaves the other one behind.
        guard let best = copies.filter({ $0.generation != nil }).max(by: { $0.generation! < $1.generation! }),
            let good = best.bytes
        else { return [] }
        return try await write(good, to: copies.filter { $0.generation != best.generation }.map(\.name), dryRun)
    }

    /// Which of two differing slots is good only its password tells: a missing
    /// copy is made again, a differing one is left to the operator.
    private func repairSlots(_ dryRun: Bool) async throws -> [String] {
        var repaired: [String] = []
        for slot in Set(try await store.list(KeySlot.prefix).map { String($0.name.dropLast(2)) }).sorted() {
            var found: [[UInt8]] = []
            var missing: [String] = []
            for name in [slot + ".a", slot + ".b"] {
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

    private func repairClosings(_ dryRun: Bool) async throws -> [String] {
        var repaired: [String] = []
        for generation in 1..<max(keys.generation, 1) {
            var good: [UInt8]?
            var bad: [String] = []
            for name in PairClosing.names(generation) {
                let bytes = try await existing(name, limit: PairClosing.sizeLimit)
                if let bytes, (try? PairClosing(opening: bytes, keys, generation: generation)) != nil {
                    good = good ?? bytes
                } else {
                    bad.append(name)
                }
            }
            if let good { repaired += try await write(good, to: bad, dryRun) }
        }
        return repaired
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
}
