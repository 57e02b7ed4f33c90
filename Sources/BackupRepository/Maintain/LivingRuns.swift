import BackupBase
import ObjectStorage

/// Runs that may be alive, by their intents.
struct LivingRuns: Sendable {
    var intents: [ListedIntent]
    /// People's names of those that were given up on the way.
    var givenUp: [String] = []
}

extension Repository {
    /// Looks at intents. Those of runs that are surely not alive are taken away, and then all are looked at again: who
    /// renewed in between is alive, and who renews later finds out.
    /// - Parameters:
    ///   - own: the caller's run, which it knows to be at work
    ///   - all: give up also those that are alive
    ///   - concerns: the intents that matter
    /// - Throws: `.busy` where runs appear again and again
    func livingRuns(
        beside own: Intent? = nil, givingUp all: Bool = false, where concerns: (ListedIntent) -> Bool = { _ in true }
    ) async throws -> LivingRuns {
        var givenUp: [String] = []
        for _ in 0..<8 {
            let found = try await intents().filter(concerns)
            // Of now: the caller may be at work for hours, and who renewed meanwhile would be dated too far ahead. Between
            // the two lists: who stands still just here judges one of them rightly.
            let now = try await storeTime()
            func isOver(_ intent: ListedIntent) throws -> Bool { try intent.run != own?.run && (all || isDead(intent, now: now)) }
            let over = Set(try found.filter(isOver).map(\.run))
            guard !over.isEmpty else { return LivingRuns(intents: found, givenUp: givenUp) }
            // A list that met a renewal may show the run's first object only, which is old.
            for intent in try await intents() where try over.contains(intent.run) && concerns(intent) && isOver(intent) {
                try await revoke(intent)
                givenUp.append(intent.holder)
            }
        }
        throw BackupError(.busy, "runs that were given up appear again and again", hint: "Run it again later.")
    }
}
