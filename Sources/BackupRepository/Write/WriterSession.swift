import BackupBase

/// What several runs of one process that follow each other closely rely on
/// together: one intent, and one look at which packs are there.
///
/// As long as the intent is there no prune takes away what was not marked when
/// the session began, so the next run need not list all packs again. It looks
/// whether something was marked since: then it begins anew, and the prune goes
/// on. For `backup --watch`, whose runs are seconds apart. Used by one task.
public final class WriterSession {
    private struct Open {
        let intent: Intent
        let renewing: Task<Void, any Error>?
        let tombstones: Set<ObjectID>
        var usable: UsablePacks
        /// Seconds by this machine's clock that only goes forward.
        let began: Double
    }

    private var open: Open?
    /// Seconds after which packs are listed all the same: one that was lost is stored again.
    private static let life = 3600.0

    public init() {}

    /// - Parameter pause: seconds between renewals of the intent; nil leaves them to the runs
    /// - Returns: the packs that may be used and the intent that keeps them, of before or new.
    func begin(_ repository: Repository, renewing pause: Double?) async throws -> (Intent, UsablePacks) {
        if let open {
            let marked = try await repository.noteIDs(Tombstone.topic)
            if marked.isSubset(of: open.tombstones), monotonicSeconds() - open.began < Self.life,
                (try? await open.intent.confirm()) != nil
            {
                return (open.intent, open.usable)
            }
            await end()
        }
        let began = monotonicSeconds()
        let intent = try await Intent.begin(.writer, repository)
        do {
            let (usable, tombstones) = try await repository.usablePacks(intent)
            open = Open(
                intent: intent, renewing: pause.map { intent.renewing(every: $0) }, tombstones: Set(tombstones), usable: usable,
                began: began)
            return (intent, usable)
        } catch {
            await intent.end()
            throw error
        }
    }

    /// What the run stored may be used by the next one.
    func keep(_ usable: UsablePacks) { open?.usable = usable }

    /// Takes the intent away: prunes need not wait for it any more.
    public func end() async {
        guard let last = open else { return }
        open = nil
        last.renewing?.cancel()
        _ = await last.renewing?.result
        await last.intent.end()
    }
}
