import BackupBase
import FoundationEssentials
import ObjectStorage

/// The part of a check that looks at what is kept twice: configuration, keys, closings.
extension Check {
    func checkCopies() async throws {
        for name in Configuration.names {
            guard let bytes = try await read(name, limit: Configuration.sizeLimit) else { continue }
            do {
                let found = try UnverifiedConfiguration(parsing: bytes)
                guard found.isGenuine(repository.keys) else { throw FormatError("it was altered") }
                if found.generation < repository.keys.generation {
                    notice(name, "it is of a rotation of the keys that was not finished: 'bgbackup key rotate' goes on with it")
                }
            } catch {
                damage(name, "\(error); its other copy is in use")
            }
        }
        var copies: [String: [(name: String, bytes: [UInt8])]] = [:]
        for info in try await repository.store.list(KeySlot.prefix) {
            guard let bytes = try await read(info.name, limit: KeySlot.sizeLimit) else { continue }
            let slot = try? JSONDecoder().decode(KeySlot.self, from: Data(bytes))
            if slot == nil { damage(info.name, "it is no key slot; its other copy may be") }
            if let slot, slot.generation < repository.keys.generation, info.name.hasSuffix(".a") {
                notice(
                    info.name, "its password opens only what is older than a rotation of the keys: remove it, or add it again")
            }
            copies[String(info.name.dropLast(2)), default: []].append((info.name, bytes))
        }
        for (slot, found) in copies.sorted(by: { $0.key < $1.key }) {
            if found.count < 2 { damage(slot, "one of its two copies is missing") }
            if found.count == 2, found[0].bytes != found[1].bytes { damage(slot, "its two copies differ") }
        }
        if copies.isEmpty { damage(KeySlot.prefix, "no key slot is left: whoever forgets the keys in memory loses everything") }
        try await checkClosings()
    }

    private func checkClosings() async throws {
        for generation in 1..<max(repository.keys.generation, 1) {
            let names = PairClosing.names(generation)
            var there: [String] = []
            for name in names where try await repository.store.info(name) != nil { there.append(name) }
            guard !there.isEmpty else {
                notice(
                    names[0],
                    "key pair \(generation) is not closed: writer keys from before the rotation still make snapshots;"
                        + " 'bgbackup key rotate' closes it")
                continue
            }
            for name in names {
                guard let bytes = try await read(name, limit: PairClosing.sizeLimit) else { continue }
                do { _ = try PairClosing(opening: bytes, repository.keys, generation: generation) } catch {
                    damage(name, "\(error); its other copy may be in use")
                }
            }
        }
    }
}
