import BackupBase
import FoundationEssentials
import ObjectStorage

/// The part of a check that looks at what is kept twice: configuration, keys, closings.
extension Check {
    func checkCopies() async throws {
        try await checkConfiguration()
        try await checkSlots()
        try await checkClosings()
    }

    private func checkConfiguration() async throws {
        let keys = repository.keys
        for name in Configuration.names {
            guard let bytes = try await read(name, limit: Configuration.sizeLimit) else { continue }
            do {
                let found = try UnverifiedConfiguration(parsing: bytes)
                if repository.isOutdated, found.outdates(keys) {
                    notice(name, "it is from after a rotation of the keys, which this password does not know")
                    continue
                }
                guard found.isGenuine(keys) else { throw FormatError("it was altered") }
                if found.generation < keys.heldGeneration {
                    notice(
                        name,
                        "it is of a rotation of the keys that was not finished: 'bgbackup key rotate --finish' goes on"
                            + " with it")
                }
            } catch {
                damage(name, "\(error); its other copy is in use")
            }
        }
    }

    private func checkSlots() async throws {
        let names: [String]
        do { names = try await Repository.slotNames(repository.store) } catch let error as BackupError
            where error.code == .damaged
        {
            return damage(KeySlot.prefix, error.message)
        }
        var copies: [String: [(name: String, bytes: [UInt8])]] = [:]
        for name in names {
            guard let bytes = try await read(name, limit: KeySlot.sizeLimit) else { continue }
            let slot = String(name.dropLast(2))
            let found = try? JSONDecoder().decode(KeySlot.self, from: Data(bytes))
            if found == nil { damage(name, "it is no key slot; its other copy may be") }
            if let found, copies[slot] == nil { note(found, name) }
            copies[slot, default: []].append((name, bytes))
        }
        for (slot, found) in copies.sorted(by: { $0.key < $1.key }) {
            if found.count < 2 { damage(slot, "one of its two copies is missing") }
            if found.count == 2, found[0].bytes != found[1].bytes { damage(slot, "its two copies differ") }
        }
        if copies.isEmpty { damage(KeySlot.prefix, "no key slot is left: whoever forgets the keys in memory loses everything") }
    }

    /// Says of a slot that it does not open what is new.
    private func note(_ slot: KeySlot, _ name: String) {
        let keys = repository.keys
        guard !repository.isOutdated, !keys.isKnown(slot) else { return }
        notice(
            name,
            slot.generation < keys.generation
                ? "its password opens only what is older than a rotation of the keys: remove it, or add it again"
                : "it is of a rotation of the keys that did not come to its end, and opens nothing newer: finish that"
                    + " with its password ('bgbackup key rotate'), or remove it, and add the password again")
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
                        + " 'bgbackup key rotate --finish' closes it")
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
