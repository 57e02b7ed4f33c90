import Foundation
import TestSupport
import Testing

/// The library under the fault tests is itself held against strace.
@Suite(.enabled(if: FaultLibrary.canRun, "needs a C compiler for the fault library"))
struct FaultLibraryTests {
    private static let changing =
        "openat,openat2,open,creat,write,pwrite64,writev,pwritev,pwritev2,copy_file_range,fsync,fdatasync,syncfs,"
        + "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,ftruncate,truncate,"
        + "fallocate,fchmod,fchmodat,chmod,fchown,fchownat,lchown,chown,setxattr,fsetxattr,utimensat,sendfile,splice"

    @Test(.enabled(if: Program.hasTool("strace"), "needs strace"), arguments: ["backup", "restore", "init"])
    func `it sees every change that strace sees`(_ command: String) throws {
        let stage = try BackupStage.shared.get()
        let work = command == "init" ? try Workspace("trace", initialize: false) : try stage.workspace.copy("trace")
        let (trace, log) = (work.path("trace"), work.path("log"))
        let root = command == "init" ? work.repository : command == "restore" ? work.path("target") : work.directory.path
        let arguments =
            ["backup": ["backup", stage.volume], "restore": ["restore", "latest", "--target", work.path("target")]][command]
            ?? ["init"]
        let faults = try Faults(below: root).logging(to: log)
        let preload = faults.environment.flatMap { ["-E", "\($0.key)=\($0.value)"] }
        let result = try Program.run(
            "/usr/bin/env",
            ["strace", "-f", "-qq", "-y", "-s", "0", "-o", trace, "-e", "trace=\(Self.changing)"] + preload
                + [Program.binary] + arguments, environment: work.environment, directory: work.directory.path)
        #expect(result.status == 0, "\(result.errors)")
        let seen = try Faults.calls(log).reduce(into: [String: Int]()) { $0[$1.kind, default: 0] += 1 }
        let traced = try Self.kinds(trace, below: root, besides: log)
        #expect(seen == traced)
        #expect(seen.values.reduce(0, +) > 10)
    }

    /// Counts successful changes below `root` in strace's output, by our names of them.
    private static func kinds(_ trace: String, below root: String, besides log: String) throws -> [String: Int] {
        var counts: [String: Int] = [:]
        var unfinished: [Substring: String] = [:]
        for part in try String(contentsOfFile: trace, encoding: .utf8).split(separator: "\n") {
            // A call that another thread interrupts is told in two lines.
            let thread = part.prefix { $0.isNumber }
            if let end = part.range(of: "<unfinished ...>") {
                unfinished[thread] = String(part[..<end.lowerBound])
                continue
            }
            var line = String(part)
            if let end = part.range(of: " resumed>"), let begin = unfinished.removeValue(forKey: thread) {
                line = begin + part[end.upperBound...]
            }
            let text = line.drop { $0.isNumber || $0 == " " }
            guard let open = text.firstIndex(of: "("), line.contains(root), !line.contains(log), !text.hasPrefix("<")
            else { continue }
            let name = String(text[..<open])
            // What fails on the way to a change is one all the same, but for
            // what is there already.
            if line.contains("= -1 EEXIST"), !name.hasPrefix("rename") { continue }
            let kind: String
            switch name {
            case "open", "openat", "openat2", "creat":
                guard line.contains("O_CREAT"), !line.contains(".lock\"") else { continue }
                kind = "create"
            case "write", "pwrite64":
                // Output of the program itself.
                guard !line.contains("(1<"), !line.contains("(2<") else { continue }
                kind = "write"
            case "renameat", "renameat2": kind = "rename"
            case "mkdirat": kind = "mkdir"
            case "unlinkat": kind = "unlink"
            case "linkat": kind = "link"
            case "symlinkat": kind = "symlink"
            case "ftruncate": kind = "truncate"
            case "fchownat": kind = "fchown"
            case "utimensat": kind = "utimens"
            case "fsetxattr": kind = "setxattr"
            default: kind = name
            }
            counts[kind, default: 0] += 1
        }
        return counts
    }
}
