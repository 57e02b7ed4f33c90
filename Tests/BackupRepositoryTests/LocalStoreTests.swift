import BackupBase
import Foundation
import ObjectStorage
import TestSupport
import Testing

/// The contract of `ObjectStore`, for the local directory.
@Suite struct LocalStoreTests {
    private let directory: TemporaryDirectory
    private let store: any ObjectStore

    init() throws {
        directory = try TemporaryDirectory("store")
        store = LocalStore(path: directory.path + "///")
    }

    private func bytes(_ count: Int, seed: Int = 1) -> [UInt8] {
        var random = Seeded(seed + count)
        return random.bytes(count)
    }

    private func kind(_ body: () async throws -> Void) async -> StoreError.Kind? {
        do {
            try await body()
            return nil
        } catch let error as StoreError {
            return error.kind
        } catch {
            Issue.record("\(error) is no StoreError")
            return nil
        }
    }

    @Test(arguments: [0, 1, 4095, 4096, 4097, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, (1 << 20) + 513])
    func `an object comes back as it was put, whole and in ranges`(_ size: Int) async throws {
        let content = bytes(size)
        try await store.put("v1/packs/ab/x", AlignedBuffer(copying: content), ifAbsent: true)
        let whole = try await store.get("v1/packs/ab/x", .all, limit: size)
        #expect(whole.array == content && whole.objectSize == size && whole.count == size)
        for (from, count) in [(0, 1), (0, size), (size / 2, size), (size, 5), (size + 100, 5), (1, 4096), (4097, 300_000)] {
            let part = try await store.get("v1/packs/ab/x", .from(from, count: count), limit: count)
            #expect(part.array == Array(content.dropFirst(from).prefix(count)), "\(from), \(count)")
            #expect(part.objectSize == size)
        }
        for last in [0, 1, 16, 4096, 300_000, size, size + 1] {
            #expect(try await store.get("v1/packs/ab/x", .last(last), limit: last).array == Array(content.suffix(last)))
        }
        #expect(try await store.info("v1/packs/ab/x")?.size == size)
    }

    @Test func `more than the limit is refused without being read`() async throws {
        try await store.put("a", AlignedBuffer(copying: bytes(1000)), ifAbsent: true)
        #expect(await kind { _ = try await store.get("a", .all, limit: 999) } == .tooLarge)
        #expect(await kind { _ = try await store.get("a", .last(500), limit: 499) } == .tooLarge)
        #expect(await kind { _ = try await store.get("a", .from(0, count: 1000), limit: 1000) } == nil)
        truncate(directory("a"), 300 << 30)
        #expect(await kind { _ = try await store.get("a", .all, limit: 64 << 20) } == .tooLarge)
    }

    @Test func `a taken name is refused, unless it is to be replaced`() async throws {
        try await store.put("v1/x", AlignedBuffer(copying: [1]), ifAbsent: true)
        #expect(await kind { try await store.put("v1/x", AlignedBuffer(copying: [2]), ifAbsent: true) } == .exists)
        #expect(try await store.get("v1/x", .all, limit: 9).array == [1])
        try await store.put("v1/x", AlignedBuffer(copying: [3]), ifAbsent: false)
        #expect(try await store.get("v1/x", .all, limit: 9).array == [3])
        #expect(try await store.list("tmp/").isEmpty, "nothing is left behind")
    }

    @Test func `of many that put one name at once exactly one succeeds`() async throws {
        let store = store
        let done = await withTaskGroup(of: Bool.self) { group in
            for number in 0..<20 {
                group.addTask { (try? await store.put("v1/one", AlignedBuffer(copying: [UInt8(number)]), ifAbsent: true)) != nil }
            }
            return await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        #expect(done == 1)
        #expect(try await store.list("tmp/").isEmpty)
    }

    @Test func `a list is sorted, complete and below its prefix`() async throws {
        for name in ["v1/packs/ab/2", "v1/packs/ab/1", "v1/packs/00/3", "v1/packsx/4", "v1/index/5", "v2/packs/6"] {
            try await store.put(name, AlignedBuffer(copying: [1, 2]), ifAbsent: true)
        }
        let listed = try await store.list("v1/packs/")
        #expect(listed.map(\.name) == ["v1/packs/00/3", "v1/packs/ab/1", "v1/packs/ab/2"])
        #expect(listed.allSatisfy { $0.size == 2 && $0.modified > 1_600_000_000_000_000_000 })
        #expect(try await store.list("v1/nothing/").isEmpty)
        #expect(try await store.list("v1/").count == 5)
    }

    @Test func `what is not there is not found, and deleting it is fine`() async throws {
        #expect(await kind { _ = try await store.get("v1/none", .all, limit: 1) } == .notFound)
        #expect(try await store.info("v1/none") == nil)
        try await store.delete("v1/none")
        try await store.put("v1/some", AlignedBuffer(copying: [1]), ifAbsent: true)
        #expect(await kind { _ = try await store.get("v1/some/below", .all, limit: 1) } == .notFound)
        #expect(try await store.info("v1/some/below") == nil)
        try await store.delete("v1/some")
        #expect(try await store.info("v1/some") == nil)
    }

    @Test func `a directory, link or pipe in an object's place is no object`() async throws {
        try FileManager.default.createDirectory(atPath: directory("v1/folder"), withIntermediateDirectories: true)
        #expect(await kind { _ = try await store.get("v1/folder", .all, limit: 1 << 20) } == .failed)
        #expect(await kind { try await store.put("v1/folder", AlignedBuffer(copying: [1]), ifAbsent: false) } != nil)
    }

    @Test func `a pipe in an object's place does not hang`() async throws {
        let path = directory("pipe")
        mkfifo(path, 0o600)
        // Whoever waits for a writer gets one after a while.
        let helper = Thread {
            sleep(3)
            close(open(path, O_WRONLY | O_NONBLOCK))
        }
        helper.start()
        let start = ContinuousClock.now
        #expect(await kind { _ = try await store.get("pipe", .all, limit: 10) } == .failed)
        #expect(ContinuousClock.now - start < .seconds(2))
    }

    @Test func `the probe finds that names are not replaced`() async throws {
        #expect(try await StoreProbe.run(store).record["conditionalCreate"] == "yes")
        // The file that compare and swap locks stays.
        #expect(try await store.list("tmp/").map(\.name) == ["tmp/lock"])
    }
}
