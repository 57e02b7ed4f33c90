import BackupBase
import FoundationEssentials
import ObjectStorage

/// What the repository keeps twice: configuration, key slots, closings of key pairs.
extension Repository {
    /// Writes the missing, altered or older copy of the configuration, of key slots
    /// and of closings anew from the good one.
    /// - Returns: the names of what was written, and what no copy that is there mends
    public func repairCopies(dryRun: Bool) async throws -> (written: [String], unmended: [String]) {
        if !dryRun { try requireCurrent() }
        let others = isOutdated ? [] : try await ConfigurationCopies(self).others
        let wanted = try await (repairSlots(nil), repairClosings(nil))
        let found = (written: others + wanted.0.written + wanted.1.written, unmended: wanted.0.unmended + wanted.1.unmended)
        guard !dryRun, !found.written.isEmpty else { return found }
        // Beside a rotation or a removal of a key it would bring back what these take away.
        return try await withLease("maintenance") { lease in
            let copies = try await ConfigurationCopies(self)
            try await copies.repair(lease)
            let (slots, closings) = try await (repairSlots(lease), repairClosings(lease))
            return (copies.others + slots.written + closings.written, slots.unmended + closings.unmended)
        }
    }

    /// Which of two differing slots is good only its password tells: a missing
    /// copy is made again, a differing one is left to the operator.
    private func repairSlots(_ lease: Lease?) async throws -> (written: [String], unmended: [String]) {
        var (repaired, unmended): ([String], [String]) = ([], [])
        for slot in Set(try await Self.slotNames(store).map { String($0.dropLast(2)) }).sorted() {
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
            guard let good = found.first else {
                // Both may have gone meanwhile.
                guard try await isAny([slot + ".a", slot + ".b"]) else { continue }
                unmended.append(
                    "\(slot): neither copy is a key slot; take both away with the store's own tools, and add the"
                        + " password again ('bgbackup key add')")
                continue
            }
            if found.contains(where: { $0 != good }) {
                unmended.append(
                    "\(slot): its copies differ, and only its password tells which is good ('bgbackup key passwd' with it"
                        + " writes another slot)")
            }
            repaired += try await write(good, to: missing, lease)
        }
        return (repaired, unmended)
    }

    private func repairClosings(_ lease: Lease?) async throws -> (written: [String], unmended: [String]) {
        var (repaired, unmended): ([String], [String]) = ([], [])
        for generation in 1..<max(keys.heldGeneration, 1) {
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
            if let good {
                repaired += try await write(good, to: bad, lease)
            } else if try await isAny(bad) {
                // Where none is there the rotation is not finished, which is no damage.
                unmended.append(
                    "\(PairClosing.names(generation)[0]): neither copy is the owner's ('bgbackup key rotate --finish' closes"
                        + " the pair anew)")
            }
        }
        return (repaired, unmended)
    }

    private func isAny(_ names: [String]) async throws -> Bool {
        for name in names where try await store.info(name) != nil { return true }
        return false
    }

    func existing(_ name: String, limit: Int) async throws -> [UInt8]? {
        do {
            return try await store.get(name, .all, limit: limit).array
        } catch let error as StoreError where error.kind == .notFound || error.kind == .tooLarge {
            return nil
        }
    }

    /// - Parameter lease: nil writes nothing
    private func write(_ bytes: [UInt8], to names: [String], _ lease: Lease?) async throws -> [String] {
        guard let lease else { return names }
        for name in names {
            try await lease.confirm()
            try await store.put(name, AlignedBuffer(copying: bytes), ifAbsent: false)
        }
        return names
    }

    /// Replaces what the configuration records about the store. Needs the owner's
    /// keys: a writer must not change it.
    /// - Returns: whether it said something else
    public func record(probe: [String: String]) async throws -> Bool {
        guard keys.canRead else { return false }
        func essence(_ record: [String: String]) -> [String: String] { record.filter { $0.key != "probed" } }
        guard essence(probe) != essence(configuration.probe) else { return false }
        // A store that was found to compare no more can give no lease either.
        guard isShared, probe["conditionalReplace"] != "no" else {
            try await record(probe, nil)
            return true
        }
        return try await withLease("maintenance") { lease in
            try await record(probe, lease)
            return true
        }
    }

    private func record(_ probe: [String: String], _ lease: Lease?) async throws {
        // As it is now: a rotation may have written it a moment ago.
        let copies = try await ConfigurationCopies(self)
        var changed = copies.configuration
        changed.probe = probe
        try await copies.replace(with: changed, keys, lease, comparing: lease != nil)
    }
}
