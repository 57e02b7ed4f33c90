import BackupBase
import Foundation
import TestSupport
import Testing

@testable import BackupEngine

@Suite("Reading rests while the database waits")
struct ReadPaceTests {
    private let directory: TemporaryDirectory
    private var file: String { directory("io.pressure") }

    init() throws { directory = try TemporaryDirectory("pressure") }

    /// Text in the kernel's form (psi.rst).
    private func write(some share: String) throws {
        let text = "some avg10=\(share) avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n"
        try Data(text.utf8).write(to: URL(filePath: file))
    }

    private func secondsForThreeReads(_ pace: ReadPace) async throws -> Double {
        let started = monotonicSeconds()
        for _ in 0..<3 { try await pace.wait(for: 1 << 20) }
        return monotonicSeconds() - started
    }

    @Test func `Each read waits a quarter of a second while the database is under pressure`() async throws {
        try write(some: "10.00")
        let pace = ReadPace(limit: nil)
        pace.watch([directory("memory.pressure"), file])
        #expect(try await secondsForThreeReads(pace) >= 0.74)
    }

    @Test func `It reads on once the pressure is gone`() async throws {
        try write(some: "55.12")
        let pace = ReadPace(limit: nil)
        pace.watch([file])
        _ = try await secondsForThreeReads(pace)
        try write(some: "9.99")
        try await Task.sleep(for: .seconds(1))
        try await pace.wait(for: 1)
        #expect(pace.isResting == false)
    }

    @Test(arguments: ["", "some", "some avg10=", "some avg10=many avg60=0", "full avg10=99.00", "SOME avg10=99.00"])
    func `What is no pressure file stops nothing`(text: String) throws {
        try Data(text.utf8).write(to: URL(filePath: file))
        #expect(ReadPace.pressure(file) == 0)
    }

    @Test func `Nobody's pressure is looked at where the control group is ours, or none`() {
        #expect(ReadPace.files(of: getpid()) == [])
        #expect(ReadPace.files(of: -1) == [])
    }
}
