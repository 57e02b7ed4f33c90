import BackupBase
import FoundationEssentials
import ObjectStorage

/// The keys of a second place: those of its source, also when the source's key
/// pair was rotated since.
extension Replication {
    /// Brings a place that names an older key pair up to the source's: slots, then the configuration, then the closings.
    func rotated(_ target: Repository) async throws -> Repository {
        guard source.keys.canRead else { return target }
        guard target.configuration.keyGeneration < source.keys.generation else {
            try await copyClosings(to: target)
            return target
        }
        return try await target.withLease("maintenance") { lease in
            let copies = try await ConfigurationCopies(target)
            try await copyKeySlots()
            let next = copies.configuration.rotated(to: source.keys, at: source.ambient.now())
            try await copies.replace(with: next, source.keys, lease, comparing: target.isShared)
            let target = repository(next)
            try await copyClosings(to: target)
            return target
        }
    }

    func copyKeySlots() async throws {
        let names = try await Repository.slotNames(source.store)
        for name in names {
            let bytes = try await source.store.get(name, .all, limit: KeySlot.sizeLimit).array
            do { try await place.put(name, AlignedBuffer(copying: bytes), ifAbsent: true) } catch let error as StoreError
                where error.kind == .exists
            {
                continue
            }
        }
        for slot in Set(names.map { $0.dropLast(2) }).sorted() { try await compare(slot: String(slot)) }
    }

    /// A slot is written once, so one that differs was altered, here or there. That the copies at one of the places agree
    /// speaks for it, and nothing speaks for either where both do.
    private func compare(slot: String) async throws {
        func copies(_ store: any ObjectStore) async throws -> [[UInt8]] {
            var found: [[UInt8]] = []
            for name in [slot + ".a", slot + ".b"] {
                do { found.append(try await store.get(name, .all, limit: KeySlot.sizeLimit).array) } catch let error
                    as StoreError where error.kind == .notFound || error.kind == .tooLarge
                {
                    continue
                }
            }
            return found
        }
        func isWhole(_ copies: [[UInt8]]) -> Bool {
            copies.count == 2 && copies[0] == copies[1]
                && (try? JSONDecoder().decode(KeySlot.self, from: Data(copies[0]))) != nil
        }
        let (ours, theirs) = (try await copies(source.store), try await copies(place))
        if ours == theirs || isWhole(theirs) && ours.allSatisfy({ $0 == theirs[0] }) { return }
        if isWhole(ours), !isWhole(theirs) {
            for name in [slot + ".a", slot + ".b"] {
                try await place.put(name, AlignedBuffer(copying: ours[0]), ifAbsent: false)
            }
        } else {
            report.damaged.append(
                "key slot \(slot) differs between the places and stays as it is at \(place.location):"
                    + " see 'bgbackup check' at both"
            )
        }
    }

    /// Each place has its own closings: what the source's say, and what is still there of what the source forgot. One
    /// that is there is the owner's word too, and may know less: the pair was closed at the place before the source.
    func copyClosings(to target: Repository) async throws {
        for generation in 1..<max(source.keys.generation, 1) {
            guard let said = try await PairClosings.read(source.store, source.keys, generation) else { continue }
            let there = try await PairClosings.read(place, source.keys, generation)
            // A backup to the place that began before: the next copy closes the pair there.
            if there == nil, try await !target.writers(before: generation + 1).isEmpty { continue }
            var closing = there ?? said
            let more = there == nil ? try await target.snapshotDigests(generation) : said.snapshots
            closing.snapshots.merge(more) { there == nil ? $0 : $1 }
            if closing.snapshots != there?.snapshots { try await target.put(closing, source.keys) }
        }
    }

    /// As they are, to a place that is empty: who cannot read cannot sign either.
    func copyClosingsUnread() async throws {
        for info in try await source.store.list(PairClosing.prefix) {
            let bytes = try await source.store.get(info.name, .all, limit: PairClosing.sizeLimit)
            try await place.put(info.name, AlignedBuffer(copying: bytes.array), ifAbsent: false)
        }
    }
}
