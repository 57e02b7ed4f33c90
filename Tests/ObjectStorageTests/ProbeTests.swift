import BackupBase
import TestSupport
import Testing

@testable import ObjectStorage

/// The probe against stores that tell one lie each: what it says "no" to is that, and nothing else.
@Suite struct ProbeTests {
    private static let all = [
        "readBack", "clock", "absence", "ranges", "listing", "conditionalCreate", "conditionalReplace", "removal",
    ]

    /// What must be found of each lie.
    private static func expected(_ lie: LyingStore.Lie) -> Set<String> {
        switch lie {
        case .overwritesInSilence, .refusesAndOverwrites, .severalWinners: ["conditionalCreate"]
        case .ignoresVersions, .refusesRightfulReplacement, .replacementFails, .createsOverOthers, .refusesAndReplaces,
            .oneVersionForAll, .readsOldState, .tellsAnotherVersion:
            ["conditionalReplace"]
        case .wholeForPart, .offByOne, .firstForLast, .anotherSize, .refusesBeyondEnd, .refusesLongSuffix, .emptyParts: ["ranges"]
        case .listsLate, .listsAllButLast, .listsRemoved, .listsOtherSizes, .listsTwice, .listsBackwards, .listsNeighbours,
            .listsNothing:
            ["listing"]
        case .losesEmpty, .cutsLarge, .flipsLarge, .tellsWrongSize: ["readBack"]
        // What is not there has no parts, and cannot be told from what is removed.
        case .storesNothing: ["readBack", "ranges", "listing", "conditionalCreate", "conditionalReplace"]
        case .tellsOfMissing, .readsMissing: ["absence", "removal"]
        case .keepsDeleted: ["listing", "removal"]
        case .keepsDeletedReadable, .keepsBatches: ["removal"]
        case .clockAhead, .clockBehind: ["clock"]
        }
    }

    @Test(arguments: LyingStore.Lie.allCases) func `each lie is found, and nothing else`(_ lie: LyingStore.Lie) async throws {
        let probe = try await StoreProbe.run(LyingStore(lie), ambient: .prompt)
        let refused = Set(probe.results.filter { !$0.holds }.map(\.name))
        #expect(refused == Self.expected(lie), "\(probe.results.filter { !$0.holds })")
        #expect(probe.results.map(\.name) == Self.all, "everything is tried all the same")
        #expect(probe.results.allSatisfy { !$0.detail.isEmpty })
        let mayBe: Set = ["clock", "conditionalCreate", "conditionalReplace"]
        #expect(probe.isUsable == refused.isSubset(of: mayBe))
        let error = await storeError { try probe.requireUsable() }
        #expect((error == nil) == probe.isUsable)
        if let error { #expect(refused.contains { error.detail.hasPrefix("\($0): ") } && error.hint != nil) }
    }

    @Test func `an honest store is all yes, and nothing is left in it`() async throws {
        let store = LyingStore()
        let probe = try await StoreProbe.run(store, ambient: .prompt)
        #expect(probe.results.allSatisfy { $0.holds } && probe.isUsable)
        #expect(probe.record.filter { $0.value == "yes" }.count == Self.all.count)
        #expect(probe.record["probed"]?.hasSuffix("Z") == true)
        #expect(abs(probe.clockOffset) < 60_000_000_000)
        #expect(store.names.isEmpty)
    }

    @Test func `how far the clocks are apart is told`() async throws {
        let probe = try await StoreProbe.run(LyingStore(.clockAhead), ambient: .prompt)
        #expect(abs(probe.clockOffset - 600_000_000_000) < 60_000_000_000)
        #expect(probe.results.first { $0.name == "clock" }?.detail.contains("10m") == true)
    }

    @Test func `a probe's objects are nobody else's`() async throws {
        let store = LyingStore()
        try await store.put("v1/config", [1])
        try await store.put("tmp/lease", [2])
        _ = try await StoreProbe.run(store, ambient: .prompt)
        _ = try await StoreProbe.run(store, ambient: .prompt)
        #expect(store.names == ["tmp/lease", "v1/config"])
    }

    @Test func `probes at once do not disturb each other`() async throws {
        let store = LyingStore()
        try await withThrowingTaskGroup(of: StoreProbe.self) { group in
            for _ in 0..<8 { group.addTask { try await StoreProbe.run(store, ambient: .prompt) } }
            for try await probe in group { #expect(probe.results.allSatisfy { $0.holds }) }
        }
        #expect(store.names.isEmpty)
    }

    @Test func `a store that cannot be asked is an error, and no result`() async throws {
        let transport = ScriptedTransport { _, _ in .error(403, "AccessDenied") }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        #expect(await storeError { _ = try await StoreProbe.run(store, ambient: .prompt) }?.kind == .denied)
        let directory = try TemporaryDirectory("probe")
        #expect(await storeError { _ = try await StoreProbe.run(LocalStore(path: directory("none"))) } != nil)
    }
}
