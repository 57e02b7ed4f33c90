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
            try await copyKeySlots()
            let next = target.configuration.rotated(to: source.keys, at: source.ambient.now())
            let bytes = AlignedBuffer(copying: try next.encoded(source.keys))
            for name in Configuration.names {
                try await lease.confirm()
                try await place.put(name, bytes, ifAbsent: false)
            }
            let target = repository(next)
            try await copyClosings(to: target)
            return target
        }
    }

    func copyKeySlots() async throws {
        for info in try await source.store.list(KeySlot.prefix) {
            let bytes = try await source.store.get(info.name, .all, limit: KeySlot.sizeLimit).array
            do { try await place.put(info.name, AlignedBuffer(copying: bytes), ifAbsent: true) } catch let error as StoreError
                where error.kind == .exists
            {
                guard try await existing(info.name) != bytes else { continue }
                try await place.put(info.name, AlignedBuffer(copying: bytes), ifAbsent: false)
            }
        }
    }

    /// Each place has its own closings: what the source's say, and what is still there of what the source forgot.
    func copyClosings(to target: Repository) async throws {
        for generation in 1..<max(source.keys.generation, 1) {
            guard try await PairClosings.read(place, source.keys, generation) == nil,
                var closing = try await PairClosings.read(source.store, source.keys, generation)
            else { continue }
            closing.snapshots.merge(try await target.snapshotDigests(generation)) { source, _ in source }
            try await target.put(closing, source.keys)
        }
    }

    /// The configuration of the newest key pair at the place: a rotation may have been stopped between its two copies.
    func newest(_ found: UnverifiedConfiguration, _ name: String) async throws -> Configuration {
        var best = found
        for other in Configuration.names where other != name {
            guard let bytes = try await existing(other), let copy = try? UnverifiedConfiguration(parsing: bytes),
                copy.isGenuine(source.keys), copy.generation > best.generation
            else { continue }
            best = copy
        }
        return best.configuration
    }
}
