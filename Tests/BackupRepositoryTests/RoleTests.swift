import BackupBase
import Foundation
import TestSupport
import Testing

@testable import BackupRepository
@testable import ObjectStorage

/// The roles' policies where a server enforces them: the strict one, and moto.
@Suite(
    .timeLimit(.minutes(20)), CheapPasswords(),
    .enabled(if: FileManager.default.isExecutableFile(atPath: S3Server.strictBinary)))
struct RoleTests {
    private static let day: Int64 = 86_400_000_000_000

    /// One server with a key for each role: to a bucket with Object Lock, or a plain one.
    private struct Bench {
        let server: S3Server
        let options: String

        init(locked: Bool) async throws {
            options = locked ? "lock=governance&lock-for=3d" : ""
            let options = options
            // A server takes a moment to start, and would keep a thread of the common pool waiting.
            server = try await Task(executorPreference: TestRepository.executor) { try Self.server(locked, options) }.value
        }

        private static func server(_ locked: Bool, _ options: String) throws -> S3Server {
            let keys = try AccessPolicy.Role.allCases.map { role in
                let place = try S3Place(
                    url: "s3://bucket/repo?" + (options.isEmpty ? "region=us-east-1" : options), environment: { _ in nil })
                let policy = try AccessPolicy(place, role: role).json()
                return "{\"access\": \"\(role.rawValue)\", \"secret\": \"secret-of-\(role.rawValue)\", \"policies\": [\(policy)]}"
            }
            let admin = "{\"access\": \"STRICTACCESS\", \"secret\": \"strict-secret-key\"}"
            return try S3Server(
                .strict,
                configuration: """
                    {"buckets": [{"name": "bucket", "region": "us-east-1", "objectLock": \(locked), "versioning": \(locked)}],
                    "keys": [\((keys + [admin]).joined(separator: ","))]}
                    """)
        }

        /// The store as this role sees it, with these options of the URL instead of the bench's.
        func store(_ role: AccessPolicy.Role, _ other: String? = nil) throws -> S3Store {
            let variables = server.environment.merging(
                ["AWS_ACCESS_KEY_ID": role.rawValue, "AWS_SECRET_ACCESS_KEY": "secret-of-\(role.rawValue)"]) { $1 }
            return try S3Store(
                place: S3Place(url: server.url("repo", other ?? options), environment: { variables[$0] }),
                environment: { variables[$0] })
        }

        /// The server is asked by a program, which takes a moment too.
        func control(_ method: String, _ path: String) async throws {
            let server = server
            try await Task(executorPreference: TestRepository.executor) { _ = try server.control(method, path) }.value
        }
    }

    private func kind(_ body: () async throws -> Void) async -> StoreError.Kind? {
        switch await failure(body) {
        case nil: return nil
        case let error as StoreError: return error.kind
        case let error?:
            Issue.record("\(error) is no StoreError")
            return nil
        }
    }

    @Test(arguments: [false, true]) func `each role can do its work, and nothing beyond it`(_ locked: Bool) async throws {
        let bench = try await Bench(locked: locked)
        let keeper = try bench.store(.keeper)

        // Keeper: probe and init.
        let probe = try await StoreProbe.run(keeper)
        #expect(probe.record["conditionalReplace"] == "yes" && probe.record["conditionalCreate"] == "yes" && probe.isUsable)
        let owner = try await Repository.create(
            store: keeper, password: [1], label: "l", probe: probe.record, executor: TestRepository.executor)

        // Writer: a whole backup with the writer key, twice; a lease.
        let writer = try bench.store(.writer)
        let node = try await Repository.open(store: writer, writer: owner.keys.writer, executor: TestRepository.executor)
        var random = Seeded(6)
        let blocks = (0..<3).map { _ in random.bytes(4096) }
        try await node.snapshot(1, blocks)
        let name = try await node.snapshot(2, blocks + [random.bytes(4096)])
        try await node.withLease("x") { lease in try await lease.confirm() }
        try await expectConfined(writer, name.object, locked)

        // Restorer: opens, restores, checks.
        let restorer = try bench.store(.restorer)
        let reading = try await Repository.open(store: restorer, password: [1], executor: TestRepository.executor)
        let report = try await reading.check()
        #expect(!report.isDamaged && report.snapshots == 2 && report.framesRead > 0, "\(report.findings)")
        for (what, body) in [
            ("put", { try await restorer.put("v1/x", AlignedBuffer(copying: [1]), ifAbsent: true) }),
            ("scratch", { try await restorer.put("tmp/x", AlignedBuffer(copying: [1]), ifAbsent: true) }),
            ("lease", { _ = try await restorer.replace("tmp/lease-x", [1], expecting: nil) }),
            ("delete", { try await restorer.delete(name.object) }),
        ] as [(String, () async throws -> Void)] { #expect(await kind(body) != nil, "\(what)") }
        #expect(await kind { try await restorer.put("v1/x", AlignedBuffer(copying: [1]), ifAbsent: true) } == .denied)

        // Keeper: repair and locks.
        let keeping = owner.seen()
        try await bench.control("PUT", "damage?bucket=bucket&key=repo/v1/config.b&mode=delete")
        #expect(try await keeping.repairCopies(dryRun: false).written == ["v1/config.b"])
        #expect(try await keeping.reindex(dryRun: false).packs == 0)
        if locked {
            let longer = try bench.store(.keeper, "lock=governance&lock-for=9d")
            try await expectKept(keeper, longer, keeping, name.object)
        } else {
            #expect(await failure { _ = try await LockExtension(keeping).run(dryRun: false) { _, _ in } } is BackupError)
            try await keeper.delete(name.object)
            #expect(try await keeper.info(name.object) == nil)
        }
    }

    /// What a stolen node could try.
    private func expectConfined(_ writer: S3Store, _ snapshot: String, _ locked: Bool) async throws {
        let other = AlignedBuffer(copying: Array("other".utf8))
        let before = try await writer.get(snapshot, .all, limit: 1 << 20).array
        func raw(_ method: String, _ headers: [(String, String)] = [], query: [(String, String)] = []) async throws {
            var call = writer.call(method, snapshot, "try")
            call.headers += headers.map { (name: $0.0, value: $0.1) }
            call.query += query.map { (name: $0.0, value: $0.1) }
            _ = try await writer.perform(call)
        }
        // Once, and not again: neither with the condition nor without it.
        try await writer.put("v1/packs/zz/once", other, ifAbsent: true)
        #expect(await kind { try await writer.put("v1/packs/zz/once", other, ifAbsent: true) } == .exists)
        #expect(await kind { try await writer.put("v1/packs/zz/once", other, ifAbsent: false) } == .denied)
        #expect(await kind { try await writer.put(snapshot, other, ifAbsent: false) } == .denied)
        #expect(await kind { try await writer.put(snapshot, other, ifAbsent: true) } == .exists)
        let version = try #require(try await writer.fetch(snapshot, limit: 1 << 20)).version
        #expect(await kind { _ = try await writer.replace(snapshot, [1], expecting: version) } == .denied)
        // Neither a marker nor a version goes.
        let refused = await kind { try await writer.delete(snapshot) }
        #expect(refused == .denied || refused == .locked)
        #expect(await kind { try await raw("DELETE") } == .denied)
        if let id = try await writer.head(snapshot)?.version {
            for bypass in [[], [("x-amz-bypass-governance-retention", "true")]] {
                #expect(await kind { try await raw("DELETE", bypass, query: [("versionId", id)]) } == .denied)
            }
        } else {
            #expect(!locked)
        }
        // Below tmp/ everything goes, and outside of the prefix nothing.
        try await writer.put("tmp/x", other, ifAbsent: true)
        try await writer.put("tmp/x", other, ifAbsent: false)
        #expect(try await writer.list("tmp/").contains { $0.name == "tmp/x" })
        #expect(try await writer.get("tmp/x", .all, limit: 100).array == Array("other".utf8))
        try await writer.delete("tmp/x")
        for name in ["tmp/x", "v1/missing"] { #expect(try await writer.info(name) == nil) }
        for name in ["v2/x", "v1/config.c", "v1/config.b", "v1/keys/0123456789abcdef.a", "v1/pairs/1.a"] {
            #expect(await kind { try await writer.put(name, other, ifAbsent: true) } == .denied, "\(name)")
        }
        #expect(try await writer.get(snapshot, .all, limit: 1 << 20).array == before)
        guard locked else { return }
        let until = try #require(try await writer.info(snapshot)?.lockedUntil)
        #expect(until > Ambient.system.now() + 2 * Self.day)
        for far in [-Self.day, 400 * Self.day] {
            #expect(await kind { try await writer.extendLock(snapshot, until: until + far) } != nil)
        }
        #expect(try await writer.info(snapshot)?.lockedUntil == until)
    }

    /// What a keeper can do with locks, and what not even that one.
    private func expectKept(_ keeper: S3Store, _ longer: S3Store, _ keeping: Repository, _ snapshot: String) async throws {
        let before = try #require(try await keeper.info(snapshot)?.lockedUntil)
        let report = try await LockExtension(keeping.seen(on: longer)).run(dryRun: false) { _, _ in }
        #expect(report.extended == report.needed && report.needed > 5)
        let after = try #require(try await keeper.info(snapshot)?.lockedUntil)
        #expect(after > before + 5 * Self.day)
        #expect(await kind { try await keeper.delete(snapshot) } == .locked)
        #expect(await kind { try await keeper.extendLock(snapshot, until: before) } != nil)
        let version = try #require(try await keeper.head(snapshot)?.version)
        var call = keeper.call("DELETE", snapshot, "try")
        call.query = [("versionId", version)]
        call.headers = [("x-amz-bypass-governance-retention", "true")]
        #expect(await kind { _ = try await keeper.perform(call) } == .denied)
        #expect(try await keeper.info(snapshot)?.lockedUntil == after)
    }

    // MARK: - moto

    /// moto knows actions and resources, signatures and explicit denies. Of conditions it
    /// knows StringEquals, for keys that S3 requests never bring: every other condition
    /// counts as fulfilled. So the statement that forbids overwriting would forbid all
    /// writing there, and is left out: that one only the strict server judges.
    @Test(.enabled(if: motoIsThere)) func `moto refuses a writer's deletions and false keys too`() async throws {
        let server = try await Task(executorPreference: TestRepository.executor) {
            try S3Server(.moto, arguments: ["--iam-after", "5"])
        }.value
        let place = try S3Place(url: server.url("repo"), environment: { _ in nil })
        var document = try #require(
            try JSONSerialization.jsonObject(with: Data(try AccessPolicy(place, role: .writer).json().utf8)) as? [String: Any])
        let statements = try #require(document["Statement"] as? [[String: Any]])
        document["Statement"] = statements.filter { $0["Sid"] as? String != "NeverOverwrite" }
        let policy = String(decoding: try JSONSerialization.data(withJSONObject: document), as: UTF8.self)
        let script = """
            import boto3, sys
            iam = boto3.client("iam", endpoint_url=sys.argv[1], region_name="us-east-1",
                               aws_access_key_id="a", aws_secret_access_key="b")
            iam.create_user(UserName="w")
            iam.put_user_policy(UserName="w", PolicyName="p", PolicyDocument=sys.argv[2])
            key = iam.create_access_key(UserName="w")["AccessKey"]
            print(key["AccessKeyId"], key["SecretAccessKey"])
            """
        let output = try await Task(executorPreference: TestRepository.executor) {
            let result = try Program.run(
                Self.motoPython, ["-c", script, server.endpoint, policy],
                environment: ["AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "no_proxy": "*"])
            guard result.status == 0 else { throw BackupError(.failed, result.errors) }
            return result.output
        }.value
        let words = output.split(whereSeparator: \.isWhitespace).map(String.init)
        try #require(words.count == 2)
        func store(_ secret: String, _ prefix: String = "repo") throws -> S3Store {
            let variables = server.environment.merging(["AWS_ACCESS_KEY_ID": words[0], "AWS_SECRET_ACCESS_KEY": secret]) { $1 }
            return try S3Store(
                place: S3Place(url: server.url(prefix, "region=us-east-1"), environment: { variables[$0] }),
                environment: { variables[$0] })
        }
        let writer = try store(words[1])
        let bytes = AlignedBuffer(copying: [1, 2, 3])
        try await writer.put("v1/packs/ab/x", bytes, ifAbsent: true)
        #expect(try await writer.get("v1/packs/ab/x", .all, limit: 10).array == [1, 2, 3])
        #expect(try await writer.list("v1/").map(\.name) == ["v1/packs/ab/x"])
        #expect(await kind { try await writer.delete("v1/packs/ab/x") } == .denied)
        #expect(try await writer.info("v1/packs/ab/x") != nil)
        try await writer.put("tmp/x", bytes, ifAbsent: true)
        try await writer.delete("tmp/x")
        #expect(try await writer.info("tmp/x") == nil)
        #expect(await kind { try await store(words[1], "elsewhere").put("v1/x", bytes, ifAbsent: true) } == .denied)
        let wrong = await kind { try await store("wrong").put("v1/packs/ab/y", bytes, ifAbsent: true) }
        #expect(wrong == .credentials || wrong == .denied)
        #expect(try await writer.info("v1/packs/ab/y") == nil)
    }

    private static let motoPython = NSHomeDirectory() + "/.cache/bgbackup/s3-venv/bin/python"
    static let motoIsThere = FileManager.default.isExecutableFile(atPath: motoPython)
}
