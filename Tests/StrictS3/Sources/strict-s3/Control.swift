import Foundation
import HTTPTypes
import NIOCore

/// The unsigned API under /_control by which a test arranges the server and looks into it.
struct Control: Sendable {
    static let prefix = "/_control/"
    let store: Store

    func answer(_ head: HTTPRequest, body: ByteBuffer) -> Answer {
        do {
            let target = (head.path ?? "").split(separator: "?", maxSplits: 1)
            let items = try S3Request.split(target.count > 1 ? String(target[1]) : "")
            let query = Dictionary(items.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first })
            return try serve("\(head.method.rawValue) \(target.first?.dropFirst(Self.prefix.count) ?? "")", query, body)
        } catch let error as S3Error {
            return Answer(error.status, json: .object(["error": .string("\(error.code): \(error.message)")]))
        } catch {
            return Answer(400, json: .object(["error": .string("\(error)")]))
        }
    }

    private func serve(_ call: String, _ query: [String: String], _ body: ByteBuffer) throws -> Answer {
        switch call {
        case "PUT config":
            let patch = try JSONValue(parsing: body.readableBytesView)
            try store.state.withLock { try $0.configure(patch) }
            store.journal.withLock { $0.reset() }
            return Answer(200, json: store.state.withLock { $0.document })
        case "GET config": return Answer(200, json: store.state.withLock { $0.document })
        case "GET stats": return Answer(200, json: store.journal.withLock { $0.stats })
        case "GET log":
            var answer = Answer(200, headers: [("Content-Type", "application/x-ndjson")])
            answer.body = ByteBuffer(string: store.journal.withLock { $0.log })
            return answer
        case "POST reset":
            try store.state.withLock { state in
                try state.clearFaults()
                if query["objects"] == "1" { state.clearObjects() }
            }
            store.journal.withLock { $0.reset() }
            return Answer(200, json: .object([:]))
        case "GET object": return try object(query)
        case "GET body":
            var answer = Answer(200)
            answer.body = try entry(query).current?.body ?? ByteBuffer()
            return answer
        case "GET keys": return try keys(query)
        case "PUT damage", "POST damage": return try damage(query, body)
        case "GET credentials", "POST credentials": return credentials(query)
        default: throw S3Error(404, "NoSuchCall", "there is no \(call) under \(Self.prefix)")
        }
    }

    private func entry(_ query: [String: String]) throws -> ObjectEntry {
        try store.state.withLock { state in
            guard let entry = state.buckets[query["bucket"] ?? "bucket"]?[ObjectKey(query["key"] ?? "")] else {
                throw S3Error.noSuchKey(query["key"] ?? "")
            }
            return entry
        }
    }

    private func object(_ query: [String: String]) throws -> Answer {
        let versions = try entry(query).versions
        guard let last = versions.last, case .object(var fields) = describe(last) else {
            throw S3Error.noSuchKey(query["key"] ?? "")
        }
        fields["key"] = .string(query["key"] ?? "")
        fields["versions"] = .array(versions.map(describe))
        return Answer(200, json: .object(fields))
    }

    private func describe(_ version: ObjectVersion) -> JSONValue {
        let attributes = version.attributes
        var sse: [String: JSONValue] = [:]
        for (name, value) in attributes?.encryption?.headers ?? [] { sse[name.lowercased()] = .string(value) }
        let metadata = attributes?.metadata.map {
            (String($0.0.dropFirst("x-amz-meta-".count)), JSONValue.string($0.1))
        }
        let lock = attributes?.retention.map {
            JSONValue.object(["mode": .string($0.mode.rawValue), "until": .string(Timestamp.iso($0.until))])
        }
        return .object([
            "versionId": .string(version.id), "deleteMarker": .bool(version.isDeleteMarker),
            "size": .int(version.body.readableBytes), "sha256": .string(hex(BodyDigests.sha256(of: version.body))),
            "etag": .string(version.etag), "lastModified": .string(Timestamp.iso(version.modified)),
            "contentType": .string(attributes?.contentType ?? ""),
            "storageClass": .string(attributes?.storageClass ?? ""), "sse": sse.isEmpty ? .null : .object(sse),
            "lock": lock ?? .null,
            "metadata": .object(Dictionary(metadata ?? [], uniquingKeysWith: { first, _ in first })),
            "checksum": version.checksum.map { .object([$0.algorithm.rawValue: .string($0.base64)]) } ?? .null,
        ])
    }

    private func keys(_ query: [String: String]) throws -> Answer {
        let name = query["bucket"] ?? "bucket"
        guard let bucket = store.state.withLock({ $0.buckets[name] }) else { throw S3Error.noSuchBucket(name) }
        let prefix = query["prefix"] ?? ""
        let list = bucket.keys.filter { $0.hasPrefix(prefix) }.compactMap { key in
            bucket[key]?.current.map {
                JSONValue.object([
                    "key": .string(key.text), "size": .int($0.body.readableBytes), "etag": .string($0.etag),
                    "storageClass": .string($0.attributes?.storageClass ?? ""),
                ])
            }
        }
        let uploads = bucket.uploads.values.map(\.key.text).sorted().map(JSONValue.string)
        return Answer(200, json: .object(["keys": .array(list), "uploads": .array(uploads)]))
    }

    private func damage(_ query: [String: String], _ body: ByteBuffer) throws -> Answer {
        guard let mode = query["mode"].flatMap(Damage.init) else {
            let modes = Damage.allCases.map(\.rawValue).joined(separator: ", ")
            throw S3Error.invalidArgument("mode must be one of \(modes)")
        }
        let name = query["bucket"] ?? "bucket"
        try store.state.withLock { state in
            guard var bucket = state.buckets[name] else { throw S3Error.noSuchBucket(name) }
            try mode.apply(
                to: &bucket, key: ObjectKey(query["key"] ?? ""), offset: query["offset"].flatMap { Int($0) },
                other: query["other"].map(ObjectKey.init), content: body)
            state.buckets[name] = bucket
        }
        return Answer(200, json: .object([:]))
    }

    /// Temporary credentials as a container's metadata service or a credential process gives them.
    private func credentials(_ query: [String: String]) -> Answer {
        let now = store.now
        let key = store.state.withLock { state in
            let lifetime = state.config.tokens.lifetimeSeconds ?? 3600
            let policies = query["access"].flatMap { state.config.keys[$0] }?.policies
            return state.makeTemporaryKey(lifetime: lifetime, policies: policies, now: now)
        }
        return Answer(
            200,
            json: .object([
                "Version": .int(1), "AccessKeyId": .string(key.access), "SecretAccessKey": .string(key.secret),
                "Token": .string(key.token), "SessionToken": .string(key.token),
                "Expiration": .string(Timestamp.iso(key.expiration, milliseconds: false)),
            ]))
    }
}
