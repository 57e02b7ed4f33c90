import BackupBase
import FoundationEssentials
import Glibc

/// The directory of drill reports: two files for each drill, and the latest as
/// `drill.json` and `drill.html`.
struct DrillArchive {
    let directory: String

    /// Reports that a page shows beside its own.
    private static let shown = 12
    /// Bytes of a report that is read.
    private static let sizeLimit = 8 << 20

    /// Earlier drills of the same repository, oldest first. What cannot be read is passed over: it is no evidence.
    func last(of repository: String) -> [DrillReport] {
        let names = LocalFile.names(in: directory).filter { $0.hasPrefix("drill-") && $0.hasSuffix(".json") }.sorted()
        var found: [DrillReport] = []
        for name in names.reversed() where found.count < Self.shown - 1 {
            guard let bytes = LocalFile.read("\(directory)/\(name)", limit: Self.sizeLimit),
                let report = try? JSONDecoder().decode(DrillReport.self, from: Data(bytes)),
                report.repository_id == repository
            else { continue }
            found.insert(report, at: 0)
        }
        return found
    }

    /// Makes sure that a report can be kept, before the work for it is done.
    func prepare() throws {
        guard LocalFile.makeDirectory(directory), access(directory, W_OK) == 0 else {
            throw BackupError(
                .failed, "reports cannot be kept in \(directory): \(String(cString: strerror(errno)))",
                hint: "Give --output a directory that can be written to.")
        }
    }

    /// - Returns: the path of the page
    func keep(_ report: DrillReport) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
        let json = Array(try encoder.encode(report)) + [UInt8(ascii: "\n")]
        let page = Array(report.page(last: last(of: report.repository_id)).utf8)
        // Of two drills in one second each has its own.
        let own = try Self.unused("\(directory)/drill-\(report.id)")
        for name in [own, "\(directory)/drill"] {
            for (bytes, kind) in [(json, "json"), (page, "html")] {
                let path = "\(name).\(kind)"
                guard LocalFile.replace(path, with: bytes) else {
                    throw BackupError(.failed, "cannot write \(path): \(String(cString: strerror(errno)))")
                }
            }
        }
        return "\(own).html"
    }

    /// A name that no report has, taken by making the file of its document.
    private static func unused(_ base: String) throws -> String {
        for number in 1...1000 {
            let name = number == 1 ? base : "\(base)-\(number)"
            let file = open("\(name).json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            if file >= 0 {
                close(file)
                return name
            }
            guard errno == EEXIST else { break }
        }
        throw BackupError(.failed, "cannot write \(base).json: \(String(cString: strerror(errno)))")
    }
}
