import BackupBase
import Foundation
import Testing

@testable import BackupRepository

/// Backups, forgets, prunes, checks and restores against each other, in the
/// order that a seed gives. In `make test` some hundred schedules; `make
/// simulate` plays ten thousand.
///
/// BGBACKUP_SIMULATIONS=N plays so many, from BGBACKUP_SIMULATION_FIRST=N on;
/// BGBACKUP_SIMULATION_SEED=N plays only that one, call by call.
@Suite(.timeLimit(.minutes(60))) struct PruneSimulationTests {
    private static func number(_ name: String) -> Int? { ProcessInfo.processInfo.environment[name].flatMap { Int($0) } }
    private static let count = number("BGBACKUP_SIMULATIONS") ?? 150
    private static let start = number("BGBACKUP_SIMULATION_FIRST") ?? 1
    private static let seed = number("BGBACKUP_SIMULATION_SEED")

    private static func command(_ seed: Int) -> String {
        "SWIFT_DETERMINISTIC_HASHING=1 BGBACKUP_SIMULATION_SEED=\(seed) swift test --filter PruneSimulationTests.anyOrder"
    }

    /// Plays the seeds on two threads until one of them shows a problem.
    private static func play(_ seeds: ClosedRange<Int>, sabotage: PruneSchedule.Sabotage? = nil) async
        -> (total: PruneSchedule.Outcome, first: (seed: Int, problems: [String])?)
    {
        let state = Locked((next: seeds.lowerBound, total: PruneSchedule.Outcome(), first: (seed: Int, problems: [String])?.none))
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<2 {
                group.addTask {
                    await Stage.alone {
                        while let seed = state.withLock({ state -> Int? in
                            guard state.first == nil, state.next <= seeds.upperBound else { return nil }
                            defer { state.next += 1 }
                            return state.next
                        }) {
                            let outcome = PruneSchedule(seed: seed, sabotage: sabotage).run()
                            state.withLock { state in
                                state.total.add(outcome)
                                if seed % 500 == 0 { print("played \(seed) \(sabotage.map { "\($0)" } ?? "")") }
                                if !outcome.problems.isEmpty, seed < state.first?.seed ?? .max {
                                    state.first = (seed, outcome.problems)
                                }
                            }
                        }
                    }
                }
            }
        }
        return state.withLock { ($0.total, $0.first) }
    }

    /// What is listed restores, a check finds nothing, and nothing is left that nobody needs, whatever the order.
    @Test func anyOrder() async throws {
        if let seed = Self.seed {
            let outcome = await Stage.alone { PruneSchedule(seed: seed, trace: true).run() }
            for problem in outcome.problems { Issue.record("seed \(seed): \(problem)") }
            return
        }
        let begin = monotonicSeconds()
        let (total, first) = await Self.play(Self.start...Self.start + Self.count - 1)
        if let first {
            Issue.record("seed \(first.seed): \(first.problems.joined(separator: "\n"))\nreplay: \(Self.command(first.seed))")
        }
        print("\(Self.count) schedules in \(fixed(monotonicSeconds() - begin, 1)) s: \(total)")
        // The simulation meets what it is about.
        let schedules = Self.count
        #expect(total.commits > schedules && total.freed > schedules / 4 && total.busy > schedules / 20)
        #expect(total.revived > schedules / 10 && total.held > schedules / 10 && total.givenUp > schedules / 20)
        #expect(total.copied > schedules / 10 && total.repacked > schedules / 10)
        #expect(total.repaired > schedules / 20)
    }

    /// A guard that is taken away is missed.
    @Test(arguments: PruneSchedule.Sabotage.allCases) func sabotage(_ sabotage: PruneSchedule.Sabotage) async throws {
        guard Self.seed == nil else { return }
        let (_, first) = await Self.play(1...5000, sabotage: sabotage)
        let found = try #require(first, "without this guard nothing goes wrong: \(sabotage)")
        print("\(sabotage): found at schedule \(found.seed): \(found.problems[0])")
    }
}

extension PruneSchedule.Outcome {
    mutating func add(_ other: Self) {
        steps += other.steps
        commits += other.commits
        freed += other.freed
        revived += other.revived
        busy += other.busy
        held += other.held
        givenUp += other.givenUp
        copied += other.copied
        repacked += other.repacked
        repaired += other.repaired
    }
}
