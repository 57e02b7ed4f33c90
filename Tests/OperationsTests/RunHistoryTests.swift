import BackupBase
import Foundation
import Operations
import TestSupport
import Testing

@Suite("Run history") struct RunHistoryTests {
    private let directory: TemporaryDirectory
    private var history: RunHistory { RunHistory(stateDirectory: directory.path) }
    private var runs: String { directory("runs") }

    init() throws { directory = try TemporaryDirectory("history") }

    /// A clock that stands at a second since 1970.
    private static func clock(_ seconds: Double) -> Ambient {
        Ambient(now: { Int64(seconds * 1e9) }, random: Ambient.system.random)
    }

    @Test func `a run is running, then what it came to`() throws {
        let run = try history.begin(
            RunRecord(
                .backup, policy: "demo", schedule: "hourly", node: "n1",
                repository: "s3://key:secret@bucket/prefix?endpoint=http://h"))
        #expect(history.read().records.map(\.outcome) == [.running])
        run.note { $0.bytesRead = 1 << 40 }
        try run.save()
        #expect(history.read().records.map(\.figures.bytesRead) == [1 << 40])
        let ended = try run.end(3, code: "incomplete", message: "two\nlines")
        let read = history.read()
        #expect(read.records == [ended] && read.damaged.isEmpty)
        #expect(ended.outcome == .warning && ended.errorMessage == "two\\x0alines" && ended.repository == "s3://bucket/prefix")
        #expect(ended.end! >= ended.start && ended.durationSeconds! >= 0)
        // Nothing is left aside.
        #expect(try FileManager.default.contentsOfDirectory(atPath: runs) == [ended.id])
    }

    @Test func `a run without an end and without a process was killed`() throws {
        var run: ActiveRun? = try history.begin(RunRecord(.prune))
        try run?.save()
        #expect(history.read().records.map(\.outcome) == [.running])
        run = nil
        let found = history.read().records
        #expect(found.map(\.outcome) == [.killed] && found.first?.errorMessage?.contains("killed") == true)
        #expect(found.first?.isDone == false)
    }

    @Test(arguments: ["", "{", "null", "{\"schema\":1}", "\u{0}\u{0}\u{0}"])
    func `a damaged record is skipped and named`(_ content: String) throws {
        let good = try history.begin(RunRecord(.check)).end(0)
        let bad = try history.begin(RunRecord(.check)).end(0)
        try Data(content.utf8).write(to: URL(filePath: "\(runs)/\(bad.id)"))
        let read = history.read()
        #expect(read.records == [good] && read.damaged == [bad.id])
        #expect(history.latest().damaged == [bad.id])
    }

    @Test func `what is no record is no record`() throws {
        let good = try history.begin(RunRecord(.check)).end(0)
        // One under another's name, a link, a directory, one of a future version, one too large.
        let names = (0..<5).map { "20260101T00000000\($0)Z.check._._.0000000\($0).json" }
        try FileManager.default.copyItem(atPath: "\(runs)/\(good.id)", toPath: "\(runs)/\(names[0])")
        try FileManager.default.createSymbolicLink(atPath: "\(runs)/\(names[1])", withDestinationPath: "\(runs)/\(good.id)")
        try FileManager.default.createDirectory(atPath: "\(runs)/\(names[2])", withIntermediateDirectories: false)
        try Data("{\"schema\":2,\"id\":\"\(names[3])\"}".utf8).write(to: URL(filePath: "\(runs)/\(names[3])"))
        try Data(count: 100_000).write(to: URL(filePath: "\(runs)/\(names[4])"))
        for name in ["x.json", ".hidden", "20260101T000000000Z.check._.json", "é.check._._.00000000.json"] {
            try Data().write(to: URL(filePath: "\(runs)/\(name)"))
        }
        let read = history.read()
        #expect(read.records == [good] && read.damaged.sorted() == names)
    }

    @Test func `old ones and too many go, the newest of a job stays`() throws {
        var bounds = RunHistory.Bounds()
        (bounds.count, bounds.age) = (3, 1000)
        func begin(_ seconds: Double, _ kind: RunRecord.Kind, _ schedule: String? = nil) throws {
            let ambient = Self.clock(seconds)
            let history = RunHistory(stateDirectory: directory.path, bounds: bounds, ambient: ambient)
            _ = try history.begin(RunRecord(kind, schedule: schedule, ambient: ambient)).end(0, ambient: ambient)
        }
        try begin(0, .drill)
        for second in 1...6 { try begin(Double(second), .backup, "hourly") }
        try begin(0.5, .backup, "monthly")
        func starts(_ kind: RunRecord.Kind, _ schedule: String? = nil) -> [Double] {
            history.read(where: { $0.kind == kind && $0.schedule == schedule }).records.map(\.start)
        }
        #expect(starts(.backup, "hourly") == [6, 5, 4] && starts(.backup, "monthly") == [0.5] && starts(.drill) == [0])
        try begin(1004.5, .backup, "hourly")
        #expect(starts(.backup, "hourly") == [1004.5, 6, 5])
        try begin(5000, .drill)
        try begin(5000, .backup, "hourly")
        #expect(starts(.drill) == [5000] && starts(.backup, "hourly") == [5000])
    }

    @Test func `those of jobs that run no more go with their time, but for the newest`() throws {
        var bounds = RunHistory.Bounds()
        bounds.age = 1000
        for (second, kind) in [(1.0, RunRecord.Kind.prune), (2, .prune), (3, .prune), (5000, .backup)] {
            let ambient = Self.clock(second)
            let history = RunHistory(stateDirectory: directory.path, bounds: bounds, ambient: ambient)
            _ = try history.begin(RunRecord(kind, ambient: ambient)).end(0, ambient: ambient)
        }
        #expect(history.read().records.map(\.start) == [5000, 3])
    }

    @Test func `a day on which a watch made nothing is no good one`() throws {
        let day = 86_400.0
        func turned(_ code: BackupError.Code?, _ fill: (inout RunRecord.Figures) -> Void) throws -> (RunRecord, RunRecord) {
            let run = ActiveRun(RunRecord(.watch, policy: "p", ambient: Self.clock(day - 10)), in: nil)
            run.note(fill)
            let same = run.nextDay(code, nil, ambient: Self.clock(day - 1), attempt: { try? $0() })
            #expect(same == nil)
            let next = run.nextDay(code, nil, ambient: Self.clock(day + 1), attempt: { try? $0() })
            return (run.record, try #require(next).record)
        }
        #expect(try turned(nil) { $0.lastDone = "1970-01-01T23:59:55Z" }.0.outcome == .success)
        #expect(try turned(nil) { _ in }.0.outcome == .busy)
        let (failed, next) = try turned(.storeFull) { $0.noteAnomaly(at: "x") }
        #expect(
            failed.outcome == .failure && failed.errorCode == "store-full" && next.outcome == .running && next.start == day + 1)
        // What stands goes on.
        let strange = try turned(nil) { ($0.anomaly, $0.lastDone) = ("it changed", "1970-01-01T23:59:55Z") }
        #expect(strange.1.figures.anomalyStanding == "it changed")
    }

    @Test func `latest reads back to what was done last, of each job`() throws {
        for (second, schedule, status) in [
            (1, "hourly", Int32(0)), (2, "monthly", 0), (3, "hourly", 0), (4, "hourly", 1), (5, "hourly", 11),
        ] {
            let ambient = Self.clock(Double(second))
            _ = try RunHistory(stateDirectory: directory.path, ambient: ambient)
                .begin(RunRecord(.backup, policy: "p", schedule: schedule, ambient: ambient)).end(status, ambient: ambient)
        }
        #expect(history.latest().records.map(\.start) == [5, 4, 3, 2])
        #expect(history.latest().records.map(\.outcome) == [.busy, .failure, .success, .success])
    }

    @Test func `runs beside each other lose nothing`() async throws {
        let history = history
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in 0..<8 {
                group.addTask {
                    for turn in 0..<20 {
                        let run = try history.begin(RunRecord(.allCases[worker % 7], policy: "p\(worker)"))
                        run.note { $0.packs = turn }
                        _ = history.read(most: 10)
                        _ = try run.end(turn % 2 == 0 ? 0 : 1)
                    }
                }
            }
            try await group.waitForAll()
        }
        let read = history.read()
        #expect(read.records.count == 160 && read.damaged.isEmpty)
        #expect(read.records.filter { $0.outcome == .success }.count == 80 && !read.records.contains { $0.ended == nil })
    }

    @Test func `a directory that takes nothing is an error, and no more`() throws {
        try Data().write(to: URL(filePath: runs))
        #expect { try history.begin(RunRecord(.backup)) } throws: {
            ($0 as? BackupError)?.message.contains("history of runs") == true
        }
        #expect(history.read().records.isEmpty && history.latest().damaged.isEmpty)
    }

    @Test(arguments: [
        ("s3://b/p?endpoint=https://u:p@h#x", "s3://b/p"), ("https://u:p@host/a@b", "https://host/a@b"), ("/srv/a@b", "/srv/a@b"),
        ("file:///srv/x", "file:///srv/x"), ("s3://u:p@w@b", "s3://b"),
        ("s3://AKIA1:ab/c?d+e@bucket/p", "s3://bucket/p"), ("s3://AKIA1:ab/c", "s3://"),
        ("http://h:9000/a@b", "http://h:9000/a@b"),
        ("http://[::1]:9000/a", "http://[::1]:9000/a"), ("\u{1b}[31m/x", "\\x1b[31m/x"),
    ])
    func `a place shows no secret`(_ url: String, _ place: String) { #expect(RunRecord.publicPlace(url) == place) }
}
