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
        for name in try await Repository.slotNames(source.store) {
            let bytes = try await source.store.get(name, .all, limit: KeySlot.sizeLimit).array
            do { try await place.put(name, AlignedBuffer(copying: bytes), ifAbsent: true) } catch let error as StoreError
                where error.kind == .exists
            {
                guard try await existing(name) != bytes else { continue }
                try await place.put(name, AlignedBuffer(copying: bytes), ifAbsent: false)
            }
        }
    }

    /// Each place has its own closings: what the source's say, and what is still there of what the source forgot. One
    /// that is there is the owner's word too, and may know less: the pair was closed at the place before the source.
    func copyClosings(to target: Repository) async throws {
        for generation in 1..<max(source.keys.generation, 1) {
            guard let said = try await PairClosings.read(source.store, source.keys, generation) else { continue }
            let there = try await PairClosings.read(place, source.keys, generation)
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
