import BackupBase
import ObjectStorage

/// Takes what snapshots need of partly used packs into packs that take their
/// places, under the same ordinals, and says so in a note of the owner's
/// (`Succession`). The packs themselves are left to the prune's marks: with the
/// note no snapshot needs them any more (docs/prune.md, "Repacking").
///
/// To prunes it is a writer: an intent keeps them from what it has put and not
/// yet told anybody of.
struct Repack {
    struct Done: Sendable {
        var packs = 0
        var bytes: Int64 = 0
        /// Bytes that took the place of these.
        var into: Int64 = 0
        /// Packs that cannot be read, each with what is wrong.
        var unreadable: [String] = []
    }

    let candidates: [PrunePlan.PartlyUsed]
    private let repository: Repository
    private let needed: [ObjectID: BlockSet]

    /// Packs rebuilt at once: each takes the memory of two packs.
    private static let width = 2
    /// Packs, or blocks, at which an index of them is written.
    private static let batch = (packs: 16, blocks: 200_000)

    init(_ repository: Repository, _ candidates: [PrunePlan.PartlyUsed], _ needed: [ObjectID: BlockSet] = [:]) {
        (self.repository, self.candidates) = (repository, candidates)
        self.needed = Dictionary(uniqueKeysWithValues: candidates.map { ($0.id, needed[$0.id] ?? BlockSet()) })
    }

    /// The packs of which the largest shares are unused, as few as bring what is unused below what is allowed.
    static func chosen(_ packs: [PrunePlan.PartlyUsed], unused: Int64, allowed: Int64) -> [PrunePlan.PartlyUsed] {
        var left = unused
        var chosen: [PrunePlan.PartlyUsed] = []
        func share(_ pack: PrunePlan.PartlyUsed) -> Double { Double(pack.unused) / Double(max(pack.size, 1)) }
        for pack in packs.sorted(by: { (share($0), $0.id) > (share($1), $1.id) }) {
            guard left > allowed else { break }
            chosen.append(pack)
            left -= pack.unused
        }
        return chosen
    }

    // MARK: - The run

    /// - Parameters:
    ///   - prune: the run that it belongs to
    ///   - pause: seconds between renewals of the run's intent; nil for none
    ///   - confirm: whether the prune may go on
    func run(
        for prune: Intent, renewing pause: Double?, _ confirm: () async throws -> Void,
        progress: (_ done: Int, _ total: Int) -> Void
    ) async throws -> Done {
        try repository.requireCurrent()
        try await repository.requireClaim()
        return try await repository.withIntent(.writer, pause: pause) { intent in
            let usable = try await repository.usablePacks(intent).packs
            // Another prune may be taking back a note of one of these packs.
            let others = try await repository.intents().filter { $0.mayPrune && $0.run != prune.run && $0.run != intent.run }
            guard others.isEmpty else { return Done() }
            return try await build(candidates.filter { usable.contains($0.id) }, intent, confirm, progress)
        }
    }

    private func build(
        _ chosen: [PrunePlan.PartlyUsed], _ intent: Intent, _ confirm: () async throws -> Void,
        _ progress: (_ done: Int, _ total: Int) -> Void
    ) async throws -> Done {
        var rest = chosen[...]
        var done = Done()
        var batch: [SuccessorBuilder.Built] = []
        let (builder, needed) = (SuccessorBuilder(repository), needed)
        var work = OrderedMap<PrunePlan.PartlyUsed, Result<SuccessorBuilder.Built?, BackupError>>(
            width: Self.width, on: repository.executor, from: { rest.popFirst() },
            transform: { pack in
                do { return .success(try await builder.build(pack.id, needed[pack.id] ?? BlockSet())) } catch let error
                    as BackupError where error.code == .damaged
                {
                    return .failure(error)
                }
            })
        var seen = 0
        do {
            while let result = try await work.next() {
                switch result {
                case .success(let built): if let built { batch.append(built) }
                case .failure(let error): done.unreadable.append("\(error)")
                }
                let blocks = batch.reduce(0) { $0 + $1.listing.trailer.ids.count }
                if batch.count >= Self.batch.packs || blocks >= Self.batch.blocks {
                    try await commit(&batch, intent, &done, confirm)
                }
                seen += 1
                WorkPulse.beat()
                progress(seen, chosen.count)
            }
            try await commit(&batch, intent, &done, confirm)
        } catch {
            await work.abandon()
            throw error
        }
        return done
    }

    /// Index first, as a backup does: from the notes on what the old packs have is looked for in the new ones.
    private func commit(
        _ batch: inout [SuccessorBuilder.Built], _ intent: Intent, _ done: inout Done, _ confirm: () async throws -> Void
    ) async throws {
        guard !batch.isEmpty else { return }
        var object = IndexObject()
        object.packs = batch.map(\.listing)
        let id = ObjectID.random(repository.ambient)
        let sealed = try object.sealed(repository.keys, id: id, salt: repository.ambient.random(32))
        try await repository.store.put(IndexObject.name(id), sealed, ifAbsent: true)
        for built in batch {
            try await confirm()
            try await intent.confirm()
            do { try await repository.put(note: built.note, Succession.topic, as: built.pack) } catch let error as StoreError
                where error.kind == .exists
            {
                // Another run was first: what this one put is of no use to anybody, and goes.
                continue
            } catch {
                // It may arrive yet.
                await intent.stay()
                throw error
            }
            done.packs += 1
            done.bytes += Int64(built.before)
            done.into += Int64(built.listing.size)
        }
        batch = []
        // Given up in between, a prune may have taken away what the notes are about. They stay: no pack goes on the word
        // of one whose successor is not there, and another prune may have acted on one that is.
        try await intent.confirm()
    }
}
