import BackupBase
import BackupRepository
import Foundation
import ObjectStorage
import TestSupport
import Testing

@testable import BackupEngine

@Suite("A watch that fails again and again")
struct WatchFailureTests {
    private let workspace: Workspace
    private let volume: String

    init() throws {
        workspace = try Workspace("giving-up", kind: nil)
        volume = workspace.path("volume")
        try FileManager.default.createDirectory(atPath: volume, withIntermediateDirectories: true)
        try Data("1".utf8).write(to: URL(filePath: volume + "/a.json"))
    }

    private func watch(interval: Double) async throws -> BackupWatch {
        let repository = try await Repository.open(
            store: LocalStore(path: workspace.repository), password: Array("correct horse".utf8),
            executor: BlockingExecutor(threads: 4), identity: nil)
        var options = BackupOptions(path: volume, node: "n", agent: "test")
        options.stateDirectory = workspace.path("state")
        return BackupWatch(repository: repository, options: options, interval: interval) {
            BackupError(.storeFailed, "\($0)")
        }
    }

    @Test func `It waits longer each time, and ends with the sixth failure`() async throws {
        let watch = try await watch(interval: 0.01)
        var waits: [Double] = []
        await #expect(throws: (any Error).self) {
            try await watch.run { event in
                switch event {
                case .made: try FileManager.default.removeItem(atPath: workspace.repository)
                case .failed(_, let wait): waits.append(wait)
                case .busy: Issue.record("nobody else runs")
                }
            }
        }
        #expect(waits == [0.02, 0.04, 0.08, 0.16, 0.32])
    }

    @Test func `A success in between counts the failures anew`() async throws {
        let watch = try await watch(interval: 0.01)
        let away = workspace.path("away")
        var failures = 0
        var made = 0
        await #expect(throws: CancellationError.self) {
            try await watch.run { event in
                switch event {
                case .made:
                    made += 1
                    guard made < 4 else { throw CancellationError() }
                    try FileManager.default.moveItem(atPath: workspace.repository, toPath: away)
                case .failed:
                    failures += 1
                    if failures % 4 == 0 { try FileManager.default.moveItem(atPath: away, toPath: workspace.repository) }
                case .busy: Issue.record("nobody else runs")
                }
            }
        }
        #expect(made == 4 && failures == 12, "\(made) made, \(failures) failures, more than six altogether")
    }
}
