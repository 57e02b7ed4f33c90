import BackupBase
import Crypto
import Foundation
import TestSupport

@testable import ObjectStorage

/// A server, and a prefix of its bucket that is this test's own.
struct S3Bench: Sendable {
    let server: S3Server
    let prefix: String
    private let transport: CurlTransport

    /// - Parameter own: a server that nobody else uses, for tests that configure it or count its requests
    init(_ kind: S3Server.Kind = .strict, own: Bool = true, configuration: String? = nil) async throws {
        server = try await Self.blocking { own ? try S3Server(kind, configuration: configuration) : try S3Server.shared(kind) }
        transport = CurlTransport()
        prefix = "t-\(UUID().uuidString.lowercased().prefix(8))"
    }

    /// Starting a server waits for it: not on one of the few threads that all tests share.
    private static func blocking<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Thread { continuation.resume(with: Result { try body() }) }.start()
        }
    }

    /// Another prefix of the same server.
    static func neighbour(of bench: S3Bench) -> S3Bench { S3Bench(bench.server, prefix: bench.prefix + "-next") }

    private init(_ server: S3Server, prefix: String) {
        self.server = server
        self.prefix = prefix
        transport = CurlTransport()
    }

    static var hasStrict: Bool { S3Server.available.contains(.strict) }

    /// - Parameters:
    ///   - options: of the URL, after the endpoint
    ///   - environment: added to the server's keys
    func store(
        _ options: String = "", ambient: Ambient = .prompt, environment: [String: String] = [:], endpoint: String? = nil,
        bucket: String? = nil
    ) throws -> S3Store {
        let environment = server.environment.merging(environment) { $1 }
        let url =
            "s3://\(bucket ?? S3Server.bucket)/\(prefix)?endpoint=\(endpoint ?? server.endpoint)"
            + (options.isEmpty ? "" : "&\(options)")
        return try S3Store(
            place: S3Place(url: url, environment: { environment[$0] }), environment: { environment[$0] }, ambient: ambient)
    }

    func key(_ name: String) -> String { "\(prefix)/\(name)" }

    // MARK: - The strict server's control, without a process for each call

    /// One request as the server saw it.
    struct Entry: Decodable, Sendable {
        var number: Int
        var operation: String
        var method: String
        var path: String
        var query: String
        var headers: [String: String]
        var status: Int?
        var error: String?
        var fault: String?
    }

    struct Statistics: Decodable, Sendable {
        var count: Int
        var requests: [String: [String: Int]]
        var faults: [String: Int]
        var runningRequests: Int
        var maxConcurrentRequests: Int
    }

    /// What the store keeps of an object.
    struct Kept: Decodable, Sendable {
        struct Lock: Decodable, Sendable {
            var mode: String
            var until: String
        }
        var size: Int
        var sha256: String
        var storageClass: String
        var sse: [String: String]?
        var lock: Lock?
        var metadata: [String: String]
        var checksum: [String: String]?
        var contentType: String
        var versions: [Version]

        struct Version: Decodable, Sendable { var deleteMarker: Bool }
    }

    struct Keys: Decodable, Sendable {
        struct Key: Decodable, Sendable {
            var key: String
            var size: Int
        }
        var keys: [Key]
        var uploads: [String]
    }

    func configure(_ json: String) async throws { _ = try await control("PUT", "config", json) }
    func personality(_ json: String) async throws { try await configure("{\"personality\": {\(json)}}") }
    func reset() async throws { _ = try await control("POST", "reset") }
    func statistics() async throws -> Statistics { try await decoded("stats") }
    func object(_ name: String) async throws -> Kept { try await decoded("object?key=\(encoded(key(name)))") }
    func keys() async throws -> Keys { try await decoded("keys?prefix=\(encoded(key("")))") }
    func damage(_ name: String, _ mode: String) async throws {
        _ = try await control("POST", "damage?mode=\(mode)&key=\(encoded(key(name)))")
    }

    /// Each request since the last reset or configuration.
    func log() async throws -> [Entry] {
        try await control("GET", "log").split(separator: "\n").map {
            try JSONDecoder().decode(Entry.self, from: Data($0.utf8))
        }
    }

    private func encoded(_ text: String) -> String { RequestSigner.encode(text) }

    private func decoded<Value: Decodable>(_ path: String) async throws -> Value {
        try JSONDecoder().decode(Value.self, from: Data(try await control("GET", path).utf8))
    }

    func control(_ method: String, _ path: String, _ body: String? = nil) async throws -> String {
        var request = HTTPRequest(method, "\(server.endpoint)/_control/\(path)")
        request.limit = 64 << 20
        request.stallTimeout = 60
        request.bypassesProxy = true
        if let body { request.body = .bytes(Array(body.utf8)) }
        let response = try await transport.send(request)
        guard response.isSuccess else { throw BackupError(.failed, "control \(path): \(response.status) \(response.text)") }
        return response.text
    }
}

extension ObjectStore {
    func put(_ name: String, _ bytes: [UInt8], ifAbsent: Bool = true) async throws {
        try await put(name, AlignedBuffer(copying: bytes), ifAbsent: ifAbsent)
    }

    func bytes(_ name: String, _ range: ByteRange = .all) async throws -> [UInt8] {
        try await get(name, range, limit: 64 << 20).array
    }
}

func sha256(_ bytes: [UInt8]) -> String { Array(SHA256.hash(data: bytes)).hex }
