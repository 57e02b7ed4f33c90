import BackupBase
import Testing

@testable import ObjectStorage

/// Keeping, renewing and sharing of keys, with an instance whose keys last an hour.
@Suite struct CredentialProviderTests {
    private var bench: CredentialBench
    private var cloud: FakeCloud { bench.cloud }

    init() throws {
        bench = try CredentialBench()
        bench.cloud.set(\.isInstance, true)
    }

    /// What so many callers get who wait for one load together.
    private func crowd(_ count: Int, _ provider: CredentialProvider) async -> [Credentials?] {
        let cloud = cloud
        let here = Locked(0)
        cloud.set(\.isHeld, true)
        return await withTaskGroup(of: Credentials?.self) { group in
            for _ in 0..<count {
                group.addTask {
                    here.withLock { $0 += 1 }
                    return try? await provider.credentials()
                }
            }
            group.addTask {
                while here.withLock({ $0 }) < count { try? await Task.sleep(for: .milliseconds(2)) }
                try? await Task.sleep(for: .milliseconds(50))
                cloud.set(\.isHeld, false)
                return nil
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
    }

    @Test func `a hundred callers share one load`() async throws {
        let keys = await crowd(100, bench.provider).compactMap { $0 }
        #expect(keys.count == 100 && Set(keys.map(\.accessKey)) == ["ASIA1"])
        #expect(cloud.made == 1 && cloud.asked.count == 3)
    }

    @Test func `a failed load fails all who wait, and the next caller tries anew`() async throws {
        cloud.fail("/vector-db", .status(403))
        let provider = bench.provider
        #expect(await crowd(20, provider).allSatisfy { $0 == nil })
        #expect(cloud.asked.count == 3)
        #expect(try await provider.credentials().accessKey == "ASIA1")
    }

    @Test func `keys are kept until five minutes before their end`() async throws {
        let provider = bench.provider
        #expect(try await provider.credentials().accessKey == "ASIA1")
        bench.pass(seconds: 3299)
        #expect(try await provider.credentials().accessKey == "ASIA1")
        bench.pass(seconds: 1)
        #expect(try await provider.credentials().accessKey == "ASIA2")
        #expect(try await provider.credentials().accessKey == "ASIA2")
    }

    @Test func `keys that cannot be renewed are used up to their last minute`() async throws {
        let provider = bench.provider
        _ = try await provider.credentials()
        cloud.set(\.isInstance, false)
        bench.pass(seconds: 3400)
        #expect(try await provider.credentials().accessKey == "ASIA1")
        let asked = cloud.asked.count
        bench.pass(seconds: 29)
        #expect(try await provider.credentials().accessKey == "ASIA1")
        #expect(cloud.asked.count == asked, "nobody is asked with each request")
        bench.pass(seconds: 1)
        #expect(try await provider.credentials().accessKey == "ASIA1")
        #expect(cloud.asked.count > asked)
        bench.pass(seconds: 110)
        #expect(try await provider.credentials().accessKey == "ASIA1", "sixty seconds are left")
        bench.pass(seconds: 1)
        await #expect(throws: CredentialError.self) { try await provider.credentials() }
        cloud.set(\.isInstance, true)
        #expect(try await provider.credentials().accessKey == "ASIA2")
    }

    @Test(.timeLimit(.minutes(1))) func `in the last minutes one caller renews and the others go on`() async throws {
        let provider = bench.provider
        _ = try await provider.credentials()
        bench.pass(seconds: 3400)
        cloud.set(\.isHeld, true)
        let first = Task { try await provider.credentials() }
        try await cloud.arrived(4)
        #expect(try await provider.credentials().accessKey == "ASIA1")
        cloud.set(\.isHeld, false)
        #expect(try await first.value.accessKey == "ASIA2")
        #expect(try await provider.credentials().accessKey == "ASIA2")
    }

    @Test func `keys that are renewed by the same or by short ones are not asked for with each request`() async throws {
        cloud.set(\.lifetime, 200)
        let provider = bench.provider
        for _ in 0..<10 { #expect(try await provider.credentials().accessKey == "ASIA1") }
        bench.pass(seconds: 30)
        for _ in 0..<10 { #expect(try await provider.credentials().accessKey == "ASIA2") }
        #expect(cloud.made == 2)
    }

    @Test(arguments: [(59, "end at 2027-01-15T08:00:59Z, in less than a minute"), (-10, "ended at 2027-01-15T07:59:50Z")])
    func `keys that are over when they come are an error`(_ lifetime: Int64, _ what: String) async throws {
        cloud.set(\.lifetime, lifetime)
        #expect(await bench.failure().message == "the keys from instance role 'vector-db' \(what)")
    }

    @Test func `keys that the store refused are loaded anew once`() async throws {
        let provider = bench.provider
        let first = try await provider.credentials()
        provider.invalidate(first)
        let second = try await provider.credentials()
        #expect(second.accessKey == "ASIA2")
        // A slower request that was still signed with the first ones.
        provider.invalidate(first)
        #expect(try await provider.credentials() == second)
        // Refused keys are not used on, however long they would be valid.
        provider.invalidate(second)
        cloud.set(\.isInstance, false)
        await #expect(throws: CredentialError.self) { try await provider.credentials() }
    }

    @Test mutating func `replaced keys in a file are found when the old ones are refused`() async throws {
        bench.settings.keyFile = try bench.write("keys", "[default]\naws_access_key_id = OLD\naws_secret_access_key = s\n")
        let provider = bench.provider
        let old = try await provider.credentials()
        try bench.write("keys", "[default]\naws_access_key_id = NEW\naws_secret_access_key = s\n")
        bench.pass(seconds: 1_000_000)
        #expect(try await provider.credentials() == old, "they have no end")
        provider.invalidate(old)
        #expect(try await provider.credentials().accessKey == "NEW")
    }

    @Test func `one of several callers may be cancelled, and the load goes on for the others`() async throws {
        cloud.set(\.isHeld, true)
        let provider = bench.provider
        let cancelled = Task { try await provider.credentials() }
        try await cloud.arrived(1)
        let patient = Task { try await provider.credentials() }
        try await Task.sleep(for: .milliseconds(50))
        cancelled.cancel()
        cloud.set(\.isHeld, false)
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        #expect(try await patient.value.accessKey == "ASIA1")
        #expect(cloud.made == 1 && cloud.asked.count == 3)
    }

    @Test(.timeLimit(.minutes(1))) func `a load that nobody waits for ends, and the next caller starts another`() async throws {
        cloud.set(\.isHeld, true)
        let provider = bench.provider
        let task = Task { try await provider.credentials() }
        try await cloud.arrived(1)
        task.cancel()
        // The cloud still holds its answer back.
        await #expect(throws: CancellationError.self) { try await task.value }
        cloud.set(\.isHeld, false)
        #expect(try await provider.credentials().accessKey == "ASIA1")
        #expect(cloud.asked.count == 4)
    }

    @Test func `a cancelled caller starts nothing`() async throws {
        let provider = bench.provider
        let late = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await provider.credentials()
        }
        await #expect(throws: CancellationError.self) { try await late.value }
        #expect(cloud.asked.isEmpty)
    }
}
