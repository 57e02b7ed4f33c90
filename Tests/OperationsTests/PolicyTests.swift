import BackupEngine
import Foundation
import ObjectStorage
import TestSupport
import Testing

@testable import Operations

/// The examples that come with the program.
enum Examples {
    static let names = ["single-node", "cluster-s3-lock", "minio", "laptop-demo"]
    static func path(_ name: String) -> String { Program.root + "policies/\(name).yaml" }
    static func text(_ name: String) throws -> String { try String(contentsOfFile: path(name), encoding: .utf8) }
}

@Suite(.timeLimit(.minutes(2))) struct PolicyTests {
    private func policy(_ lines: String...) throws -> PolicyFile {
        PolicyFile(path: "p.yaml", text: WrongPolicy.local + "\n" + lines.joined(separator: "\n") + "\n")
    }

    @Test(arguments: Examples.names) func `every example is right, and warns of nothing`(name: String) throws {
        let file = try PolicyFile(path: Examples.path(name))
        #expect(file.errors.isEmpty && file.warnings.isEmpty, "\(file.errors) \(file.warnings)")
        let policy = try #require(file.policy)
        #expect(!policy.jobs.isEmpty && policy.jobs.allSatisfy { !$0.onCalendar.isEmpty })
        #expect(try JSONDecoder().decode(Policy.self, from: JSONEncoder().encode(policy)) == policy)
    }

    @Test(arguments: Examples.names) func `the effective policy is a policy that means the same`(name: String) throws {
        let file = try PolicyFile(path: Examples.path(name))
        let again = PolicyFile(path: "again", text: file.document)
        #expect(again.errors.isEmpty, "\(again.errors)")
        var (policy, second) = (try #require(file.policy), try #require(again.policy))
        // Written-out defaults of the URL's options are options now.
        policy.repository.options = [:]
        second.repository.options = [:]
        for index in policy.copies.indices {
            policy.copies[index].place.options = [:]
            second.copies[index].place.options = [:]
        }
        #expect(second == policy)
        #expect(again.document == file.document)
    }

    @Test func `no file but the examples lies beside them`() throws {
        let found = try FileManager.default.contentsOfDirectory(atPath: Program.root + "policies").sorted()
        #expect(found == Examples.names.map { "\($0).yaml" }.sorted())
    }

    @Test func `everything that an example says arrives`() throws {
        let policy = try #require(try PolicyFile(path: Examples.path("cluster-s3-lock")).policy)
        #expect(policy.name == "qdrant-prod" && policy.labels == ["owner": "search", "stage": "production"])
        #expect(policy.cluster == "blue" && policy.node == nil && policy.tags == ["production"] && !policy.paused)
        #expect(policy.source.path == "/var/lib/qdrant/storage" && !policy.source.isDevice)
        #expect(policy.source.qdrant == Policy.Server(url: "http://127.0.0.1:6333", apiKey: .credential("qdrant.api-key")))
        #expect(policy.capture == Policy.Capture(method: "auto", maxFreeze: 2, keep: true, hook: nil, acceptFuzzy: false))
        #expect(policy.password == nil && policy.writerKey == .credential("bgbackup.writer-key"))
        #expect(policy.schedules.map(\.name) == ["hourly", "daily", "monthly"])
        #expect(policy.schedules.map(\.keepFor) == [172_800, 3_024_000, 34_560_000])
        #expect(policy.schedules.map(\.interval) == [3600, 86_400, 2_678_400])
        var retention = RetentionPolicy()
        (retention.keepLast, retention.keepWithin) = (3, 7 * 86_400)
        #expect(policy.retention == retention)
        #expect(policy.immutability == Policy.Immutability(mode: "compliance", lockFor: 14 * 86_400))
        #expect(policy.prune?.grace == 48 * 3600 && policy.check?.readData == 5)
        #expect(
            policy.drill?.recoveryTime == 1200 && policy.drill?.recoveryPoint == 4500 && policy.drill?.boot == ["/usr/bin/qdrant"]
        )
        #expect(policy.healthchecks == .credential("bgbackup.healthchecks"))
        #expect(policy.webhooks.map(\.events) == [["failure", "recovered", "drillFailed", "damage"]])
        let url = policy.repositoryURL { "\($0)" == "credential(\"bgbackup.s3\")" ? "/run/c/s3 keys" : "?" }
        #expect(
            url
                == "s3://acme-backups/qdrant/blue?class=STANDARD_IA&credentials=/run/c/s3%20keys&lock=compliance&lock-for=1209600&region=eu-central-1&sse=aws:kms"
        )
        let place = try S3Place(url: url, environment: { _ in nil })
        #expect(place.lockMode == .compliance && place.lockFor == 14 * 86_400 * 1_000_000_000)
        #expect(
            place.credentialsFile == "/run/c/s3 keys" && place.storageClass == "STANDARD_IA" && place.encryption == .kms(key: nil)
        )
        #expect(policy.url(of: policy.copies[0]) { _ in "/x" } == "s3://acme-dr/qdrant/blue?credentials=/x&region=eu-west-1")
    }

    @Test func `traps of YAML 1_1 are the texts that were written`() throws {
        let file = try policy(
            "  node: no", "  cluster: 010", "  tags: [on, yes, 22:00, 1e3, 0x10, 2026-11-27, 1_0, '~', .5]",
            "  limits: {read: 1MiB/s, window: {from: 22:00, to: 06:30, outside: 1MiB/s}}")
        let policy = try #require(file.policy, "\(file.errors)")
        #expect(policy.node == "no" && policy.cluster == "010")
        #expect(policy.tags == ["on", "yes", "22:00", "1e3", "0x10", "2026-11-27", "1_0", "~", ".5"])
        #expect(policy.limits.window == Policy.Window(from: 1320, to: 390, outside: 1 << 20))
    }

    @Test func `limits outside the window are the window's`() {
        var limits = Policy.Limits(upload: 100, download: nil, read: 5, window: .init(from: 1320, to: 360, outside: 20))
        for minute in [1320, 1439, 0, 359] { #expect(limits.at(minute).upload == 100 && limits.at(minute).download == nil) }
        for minute in [360, 720, 1319] {
            #expect(limits.at(minute).upload == 20 && limits.at(minute).download == 20 && limits.at(minute).read == 5)
        }
        limits.window = .init(from: 60, to: 120, outside: 20)
        #expect(
            limits.at(60).upload == 100 && limits.at(119).upload == 100 && limits.at(120).upload == 20
                && limits.at(59).upload == 20)
    }

    @Test func `every value says where it comes from`() throws {
        let file = try policy("  capture: {maxFreeze: 3s}")
        let origins = Dictionary(uniqueKeysWithValues: file.settings.map { ($0.path, $0.origin) })
        #expect(origins["spec.source.path"] == .file(line: 7, column: 11))
        #expect(origins["spec.capture.maxFreeze"] == .file(line: 14, column: 24))
        #expect(origins["spec.capture.method"] == .byDefault && origins["spec.retention.minSnapshots"] == .byDefault)
        #expect(origins["spec.schedules[0].keepFor"] == .file(line: 13, column: 16))
        #expect(file.settings.first { $0.path == "spec.retention.maxDeleteRatio" }?.text == "0.5")
    }

    @Test(arguments: [
        (
            "  immutability: {mode: compliance, lockFor: 30d}",
            "p.yaml:14:45: warning: lockFor is longer than anything is kept (2w)"
        ),
        ("  capture: {acceptFuzzy: true}", "p.yaml:14:13: warning: acceptFuzzy does nothing with method auto"),
    ])
    func `what is only odd is a warning`(line: String, begin: String) {
        let file = PolicyFile(path: "p.yaml", text: WrongPolicy.store + "\n\(line)\n")
        #expect(file.policy != nil && file.warnings.count == 1)
        #expect(file.warnings.first.map { "\($0)".hasPrefix(begin) } == true, "\(file.warnings)")
    }

    @Test func `a schedule whose snapshots go before the next one comes is a warning`() {
        let text = WrongPolicy.local.replacing("keepFor: 14d", with: "keepFor: 2h")
        let file = PolicyFile(path: "p.yaml", text: text)
        #expect(
            file.policy != nil && file.warnings.map { "\($0)" }.first?.contains("shorter than the 1d between two runs") == true)
    }

    @Test func `options of an s3 URL are keys, or have another place`() {
        let elsewhere: Set = ["lock", "lock-for", "limit-upload", "limit-download"]
        #expect(Set(PolicyKey.s3Options.values).union(elsewhere) == Set(S3Place.options.map(\.name)))
        let keys = PolicyKey.all.filter { $0.path.hasPrefix("spec.repository.s3.") }.map(\.key.name)
        #expect(Set(keys) == Set(PolicyKey.s3Options.keys))
    }

    @Test func `each default of the table is a value of its kind`() {
        for (path, key) in PolicyKey.all {
            guard let fallback = key.fallback else { continue }
            guard case .scalar(let scalar) = key.kind else {
                Issue.record("\(path) has a default and is no single value")
                continue
            }
            #expect(throws: Never.self, "\(path)") { try scalar.value(of: fallback, isPlain: true) }
        }
    }

    @Test func `the defaults of s3 are those of the URL`() throws {
        let place = try S3Place(url: "s3://bucket", environment: { _ in nil })
        let defaults = Dictionary(uniqueKeysWithValues: PolicyKey.all.compactMap { path, key in key.fallback.map { (path, $0) } })
        #expect(defaults["spec.repository.s3.connections"] == "\(place.connections)")
        #expect(defaults["spec.repository.s3.timeout"] == "\(Int(place.stallTimeout))s")
        #expect(defaults["spec.repository.s3.retryFor"] == PolicyScalar.words(place.patience))
        #expect(defaults["spec.repository.s3.partSize"] == "\(place.partSize >> 20)MiB")
        #expect(defaults["spec.repository.s3.multipartAbove"] == "\(place.multipartAbove >> 30)GiB")
    }

    /// BGBACKUP_WRITE_DOCS=1 writes the table anew.
    @Test func `the document has every key of the table, and no other`() throws {
        let path = Program.root + "docs/policy.md"
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n", omittingEmptySubsequences: false)
        let heading = try #require(lines.lastIndex(of: "|---|---|---|---|"))
        let written = lines[(heading + 1)...].filter { !$0.isEmpty }.map(String.init)
        guard ProcessInfo.processInfo.environment["BGBACKUP_WRITE_DOCS"] == "1" else {
            #expect(written == PolicySchema.rows)
            return
        }
        let text = (lines[...heading].map(String.init) + PolicySchema.rows).joined(separator: "\n") + "\n"
        try text.write(toFile: path, atomically: true, encoding: .utf8)
    }
}
