import Foundation
import Glibc
import TestSupport
import Testing

/// Objects that are not what they were: whatever is wrong, it is named, exit
/// status 17, and no wrong byte is written.
@Suite struct DamageTests {
    private let stage: BackupStage
    private let work: Workspace

    init() throws {
        stage = try BackupStage.shared.get()
        work = try stage.workspace.copy("damage")
    }

    /// What happens to an object.
    enum Harm: String, CaseIterable, CustomTestStringConvertible {
        case missing, empty, cutToOneByte, cutInHeader, cutInHalf, cutByOne, longer, huge
        case flipInHeader, flipInKeying, flipEarly, flipInTheMiddle, flipLate, flipAtTheEnd
        var testDescription: String { rawValue }

        func apply(to path: String) throws {
            let size = Int((try FileManager.default.attributesOfItem(atPath: path)[.size] as? NSNumber)?.intValue ?? 0)
            func flip(_ offset: Int) throws {
                let file = try FileHandle(forUpdating: URL(filePath: path))
                try file.seek(toOffset: UInt64(offset))
                let byte = try file.read(upToCount: 1)?.first ?? 0
                try file.seek(toOffset: UInt64(offset))
                try file.write(contentsOf: Data([byte ^ 0x10]))
                try file.close()
            }
            switch self {
            case .missing: try FileManager.default.removeItem(atPath: path)
            case .empty: truncate(path, 0)
            case .cutToOneByte: truncate(path, 1)
            case .cutInHeader: truncate(path, 40)
            case .cutInHalf: truncate(path, off_t(size / 2))
            case .cutByOne: truncate(path, off_t(size - 1))
            case .longer:
                let file = try FileHandle(forWritingTo: URL(filePath: path))
                try file.seekToEnd()
                try file.write(contentsOf: Data(repeating: 0x41, count: 100))
                try file.close()
            case .huge: truncate(path, 200 << 30)
            case .flipInHeader: try flip(17)
            case .flipInKeying: try flip(45)
            case .flipEarly: try flip(min(70, size - 1))
            case .flipInTheMiddle: try flip(size / 2)
            case .flipLate: try flip(max(size - 40, 0))
            case .flipAtTheEnd: try flip(size - 1)
            }
        }
    }

    private func largestPack() -> String {
        work.objects("packs").max { size($0) < size($1) }!
    }
    private func smallestPack() -> String {
        work.objects("packs").min { size($0) < size($1) }!
    }
    private func size(_ object: String) -> Int {
        ((try? FileManager.default.attributesOfItem(atPath: "\(work.repository)/\(object)")[.size]) as? NSNumber)?.intValue ?? 0
    }

    // MARK: - Judging

    private func check(_ more: String...) throws -> (status: Int32, findings: [[String: Any]]) {
        let result = try work.run(["check", "--json"] + more)
        let damage = (result.summary["findings"] as? [[String: Any]] ?? []).filter { $0["severity"] as? String == "damage" }
        return (result.status, damage)
    }

    /// Restores; whatever is there afterwards must be the source's bytes, or be marked unfinished.
    private func expectNoWrongBytes(status expected: Int32, named: String?) throws {
        let (result, peak) = try work.measured(["restore", stage.first, "--target", work.path("target"), "--json"])
        #expect(result.status == expected, "\(result.errors)")
        #expect(peak < 400 << 10, "\(peak) KiB")
        let target = work.path("target")
        let isThere = FileManager.default.fileExists(atPath: target)
        if expected == 0 { return #expect(try Fixture.hash(target) == stage.firstTree) }
        #expect(result.summary["code"] as? String == "damaged")
        if let named { #expect(result.errors.contains(named), "\(result.errors)") }
        #expect(
            !isThere || FileManager.default.fileExists(atPath: "\(target)/.bgbackup-incomplete")
                || ((try? FileManager.default.contentsOfDirectory(atPath: target)) ?? []).isEmpty)
        for name in FileManager.default.subpaths(atPath: target) ?? [] where !name.hasPrefix(".bgbackup") {
            guard let got = FileManager.default.contents(atPath: "\(target)/\(name)"),
                let truth = FileManager.default.contents(atPath: "\(stage.workspace.path("first-volume"))/\(name)")
            else { continue }
            // What is not written yet is a hole; nothing else may differ.
            let wrong = zip(got, truth).contains { $0 != $1 && $0 != 0 }
            #expect(!wrong && got.count <= truth.count, "\(name) holds bytes that the source never had")
        }
    }

    // MARK: - Packs

    @Test(arguments: Harm.allCases)
    func `a harmed pack of data is named by check and stops a restore`(_ harm: Harm) throws {
        let pack = largestPack()
        try harm.apply(to: "\(work.repository)/\(pack)")
        // Frames, and the encapsulated key that only frames are sealed under.
        let inFrames: Set<Harm> = [.flipInKeying, .flipEarly, .flipInTheMiddle]
        let plain = try check()
        if !inFrames.contains(harm) {
            #expect(plain.status == 17)
            #expect(plain.findings.contains { $0["object"] as? String == pack })
        }
        let full = try check("--read-data")
        #expect(full.status == 17)
        #expect(full.findings.contains { $0["object"] as? String == pack })
        let paths = full.findings.filter { $0["snapshot"] as? String == stage.first }.compactMap { $0["path"] as? String }
        #expect(paths.contains { $0.hasPrefix("segment/") }, "snapshot and path are named: \(full.findings)")
        try expectNoWrongBytes(status: 17, named: pack)
    }

    @Test(arguments: [Harm.missing, .empty, .cutInHalf, .longer, .huge, .flipInKeying, .flipInTheMiddle, .flipAtTheEnd])
    func `a harmed pack of manifest chunks is named by check and stops a restore`(_ harm: Harm) throws {
        let pack = smallestPack()
        try harm.apply(to: "\(work.repository)/\(pack)")
        let full = try check("--read-data")
        #expect(full.status == 17)
        #expect(full.findings.contains { $0["object"] as? String == pack })
        #expect(full.findings.contains { $0["snapshot"] as? String == stage.first }, "\(full.findings)")
        try expectNoWrongBytes(status: 17, named: pack)
    }

    @Test func `a pack in another's place is recognised`() throws {
        let packs = work.objects("packs")
        let (one, other) = (packs[0], packs[1])
        let (a, b) = ("\(work.repository)/\(one)", "\(work.repository)/\(other)")
        try Program.run("/bin/mv", [a, work.path("aside")])
        try Program.run("/bin/mv", [b, a])
        try Program.run("/bin/mv", [work.path("aside"), b])
        let found = try check()
        #expect(found.status == 17)
        for pack in [one, other] { #expect(found.findings.contains { $0["object"] as? String == pack }) }
        try expectNoWrongBytes(status: 17, named: nil)
    }

    // MARK: - Index

    @Test(arguments: Harm.allCases.filter { $0 != .cutToOneByte && $0 != .cutByOne && $0 != .flipLate })
    func `a harmed index is named by check, does not matter to a restore, and repair replaces it`(_ harm: Harm) throws {
        let index = work.objects("index")[0]
        try harm.apply(to: "\(work.repository)/\(index)")
        let found = try check()
        if harm == .missing {
            #expect(found.status == 0, "an index only repeats the packs")
        } else {
            #expect(found.status == 17)
            #expect(found.findings.contains { $0["object"] as? String == index })
        }
        try expectNoWrongBytes(status: 0, named: nil)
        // A cache of it must not hide the damage from nor break a backup.
        try? FileManager.default.removeItem(atPath: work.path("cache"))
        let (backup, peak) = try work.measured(["backup", stage.volume, "--json"])
        #expect(peak < 400 << 10, "\(peak) KiB")
        if harm == .missing {
            #expect(backup.status == 0, "\(backup.errors)")
        } else {
            #expect(backup.status == 17, "\(backup.errors)")
            #expect(backup.summary["code"] as? String == "damaged")
            #expect(backup.errors.contains(index))
            #expect(try work.bgbackup("repair").status == 0)
            #expect(try work.bgbackup("check").status == 0)
            #expect(try work.bgbackup("backup", stage.volume).status == 0)
        }
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
    }

    // MARK: - Snapshots

    @Test(arguments: [
        Harm.empty, .cutInHeader, .cutInHalf, .longer, .huge, .flipInHeader, .flipInKeying, .flipInTheMiddle, .flipAtTheEnd,
    ])
    func `a harmed snapshot is named and the others are not affected`(_ harm: Harm) throws {
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        let objects = work.objects("snapshots")
        let first = objects.first { $0.contains(stage.first) }!
        try harm.apply(to: "\(work.repository)/\(first)")
        let found = try check()
        #expect(found.status == 17)
        #expect(found.findings.contains { $0["object"] as? String == first }, "\(found.findings)")
        try expectNoWrongBytes(status: 17, named: first)
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
        let list = try work.bgbackup("snapshots", "--json")
        #expect(list.status == 0 || list.status == 17, "\(list.errors)")
        let second = objects.first { $0 != first }!
        #expect(list.output.contains(second.suffix(32)), "the others are listed: \(list.output)")
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
    }

    @Test func `a snapshot in another's place is recognised`() throws {
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        let objects = work.objects("snapshots")
        try Program.run("/bin/cp", ["\(work.repository)/\(objects[1])", "\(work.repository)/\(objects[0])"])
        #expect(try check().findings.contains { $0["object"] as? String == objects[0] })
        try expectNoWrongBytes(status: 17, named: objects[0])
    }

    @Test func `a snapshot under a higher sequence is not taken for the latest`() throws {
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        let first = work.objects("snapshots").first { $0.contains(stage.first) }!
        let later = "v1/snapshots/00000000000000ff-\(stage.first)"
        try Program.run("/bin/mv", ["\(work.repository)/\(first)", "\(work.repository)/\(later)"])
        #expect(try check().findings.contains { $0["object"] as? String == later })
        #expect(try work.bgbackup("restore", "latest", "--target", work.path("target")).status == 17)
    }

    // MARK: - Configuration and key slots

    @Test(arguments: [Harm.missing, .empty, .cutInHalf, .longer, .huge, .flipInTheMiddle, .flipLate], ["config", "keys"])
    func `one harmed copy is tolerated by a restore and reported by check`(_ harm: Harm, _ kind: String) throws {
        let object = kind == "config" ? "v1/config.a" : work.objects("keys")[0]
        try harm.apply(to: "\(work.repository)/\(object)")
        let found = try check()
        #expect(found.status == 17, "\(object)")
        #expect(found.findings.contains { object.hasPrefix($0["object"] as? String ?? "?") }, "\(found.findings)")
        try expectNoWrongBytes(status: 0, named: nil)
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
    }

    @Test(arguments: [Harm.missing, .empty, .flipInTheMiddle, .huge], ["config", "keys"])
    func `two harmed copies are an error that says so`(_ harm: Harm, _ kind: String) throws {
        let objects = kind == "config" ? ["v1/config.a", "v1/config.b"] : work.objects("keys")
        for object in objects { try harm.apply(to: "\(work.repository)/\(object)") }
        for arguments in [["check"], ["restore", "latest", "--target", work.path("target")], ["snapshots"]] {
            let (result, peak) = try work.measured(arguments + ["--json"])
            #expect(peak < 400 << 10)
            let code = result.summary["code"] as? String ?? "none"
            switch (kind, harm) {
            case ("config", .missing): #expect(result.status == 10 && code == "no-repository", "\(result.errors)")
            // A flip may hit a key slot so that it is merely another key's.
            case ("keys", .flipInTheMiddle):
                #expect([12, 17].contains(result.status), "\(result.errors)")
            default: #expect(result.status == 17 && code == "damaged", "\(result.errors)")
            }
        }
        #expect(!FileManager.default.fileExists(atPath: work.path("target")))
    }

    // MARK: - The repository as a whole

    @Test func `a repository put back to an older copy is backed up into and restores`() throws {
        try Program.run("/bin/cp", ["-a", work.repository, work.path("older")])
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        try Program.run("/bin/rm", ["-rf", work.repository])
        try Program.run("/bin/mv", [work.path("older"), work.repository])
        // State and cache are newer than the repository now.
        let result = try work.bgbackup("backup", stage.volume, "--json")
        #expect(result.status == 0, "\(result.errors)")
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
        #expect(try work.restored(stage.first, to: "first") == stage.firstTree)
        #expect(try work.bgbackup("check", "--read-data").status == 0)
    }

    @Test func `foreign files in the repository disturb nothing`() throws {
        for name in [
            "v1/packs/zz", "v1/packs/ab/short", "v1/index/readme.txt", "v1/snapshots/x", "v1/keys/nonsense", "v1/keys/00.a",
            "lost+found",
        ] {
            let path = "\(work.repository)/\(name)"
            try FileManager.default.createDirectory(
                atPath: URL(filePath: path).deletingLastPathComponent().path(), withIntermediateDirectories: true)
            try Data("?".utf8).write(to: URL(filePath: path))
        }
        mkfifo("\(work.repository)/v1/index/fifo", 0o600)
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
        #expect([0, 17].contains(try work.bgbackup("check", "--read-data").status))
    }

    @Test(arguments: [1 << 10, 3000, 4096 + 100]) func `a torn cache costs time only`(_ size: Int) throws {
        let folder = work.path("cache")
        for name in FileManager.default.subpaths(atPath: folder) ?? [] where name.hasSuffix(".run") {
            truncate("\(folder)/\(name)", off_t(size))
        }
        let states = FileManager.default.subpaths(atPath: work.path("state")) ?? []
        for name in states where name.hasSuffix(".state") { truncate("\(work.path("state"))/\(name)", off_t(size)) }
        #expect(try work.bgbackup("backup", stage.volume).status == 0)
        #expect(try work.restored("latest", to: "latest") == stage.secondTree)
    }
}
