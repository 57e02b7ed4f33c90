import BackupBase
import Testing

@testable import ObjectStorage

extension S3Bench {
    static let bytes: [UInt8] = {
        var random = Seeded(99)
        return random.bytes(70_000)
    }()

    /// A configuration with faults at these rates, of all operations or of one.
    static func faults(_ rates: String, _ operation: String? = nil, seed: Int = 1, more: String = "") -> String {
        let only = operation.map { ", \"faultOperations\": [\"\($0)\"]" } ?? ""
        return "{\"rates\": {\(rates)}, \"seed\": \(seed)\(only)\(more)}"
    }

    static func personality(_ fields: String) -> String { "{\"personality\": {\(fields)}}" }

    /// Everything a repository does to a store, in small.
    static func sequence(_ store: S3Store) async throws {
        try await store.put("v1/a", bytes)
        try await store.put("tmp/b", [1])
        #expect(try await store.list("v1/").map(\.name) == ["v1/a"])
        #expect(try await store.bytes("v1/a", .last(1000)) == bytes.suffix(1000))
        let version = try await store.replace("tmp/l", [1], expecting: nil)
        try await store.replace("tmp/l", [2], expecting: version)
        #expect(try await store.fetch("tmp/l", limit: 9)?.bytes == [2])
        try await store.delete("tmp/b")
        try await store.delete("v1/a")
        #expect(try await store.list("v1/").isEmpty)
    }
}
