import BackupBase
import Foundation
import TestSupport

/// Volumes of a cluster whose shards the real engine wrote, made once for all tests.
final class ClusterFixture: Sendable {
    private let directory: TemporaryDirectory

    static let shared: ClusterFixture? = try? ClusterFixture()

    private init() throws {
        directory = try TemporaryDirectory("cluster", inMemory: true)
        try Fixture.run("cluster", directory("all"), "--nodes", "3", "--points", "200", "--dim", "8")
        try Fixture.run("cluster", directory("sharded"), "--nodes", "3", "--sharded", "--points", "200", "--dim", "8")
        try Fixture.run("cluster", directory("single"), "--nodes", "1", "--standalone", "--points", "100", "--dim", "8")
    }

    enum Kind: String { case all, sharded, single }

    /// A copy of one node's volume that a test may break.
    func copy(_ kind: Kind = .all, node: Int = 0, to path: String) throws {
        let result = try Program.tool("cp", ["-a", "--sparse=always", directory("\(kind)/node-\(node)"), path])
        guard result.status == 0 else { throw BackupError(.failed, result.errors) }
    }

    /// Names of the ways to break a volume.
    static let traps: [String] = {
        let output = (try? Fixture.run("trap", "--list").output) ?? ""
        return output.split(separator: "\n").compactMap { $0.split(separator: " ").first.map(String.init) }
    }()
}
