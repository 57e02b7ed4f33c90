import ArgumentParser
import BackupBase
import BackupEngine
import BackupRepository

/// A snapshot as JSON: its record, and its id.
struct SnapshotDocument: Encodable {
    let snapshot: Snapshot
    /// A fingerprint of the server has hundreds of KiB, a policy some: a list leaves them out.
    var isWhole = true
    /// What the notes say; nil where they cannot be read.
    var marks: SnapshotMarks?
    private enum Key: String, CodingKey { case id, short_id, held, proven, holds, drills }

    func encode(to encoder: any Encoder) throws {
        var record = snapshot.record
        if !isWhole {
            record.fingerprint = nil
            record.policy?.document = nil
        }
        try record.encode(to: encoder)
        var container = encoder.container(keyedBy: Key.self)
        try container.encode("\(snapshot.id)", forKey: .id)
        try container.encode(String("\(snapshot.id)".prefix(8)), forKey: .short_id)
        guard let marks else { return }
        try container.encode(!marks.holds.isEmpty, forKey: .held)
        try container.encode(marks.isProven, forKey: .proven)
        guard isWhole else { return }
        try container.encode(marks.holds, forKey: .holds)
        try container.encode(marks.documents, forKey: .drills)
    }
}

struct SnapshotsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "snapshots", abstract: "List snapshots, oldest first.")

    @OptionGroup var global: GlobalOptions
    @Option(help: "Only those of this node.") var node: String?
    @Option(name: .customLong("tag"), help: ArgumentHelp("Only those with this tag.", valueName: "tag")) var tag: String?
    @Option(help: "Only those of this backup set.") var set: String?
    @Flag(help: "List backup sets: whether each has all nodes of its cluster, and how far apart they were captured.")
    var sets = false

    mutating func run() async throws {
        let session = Session(options: global)
        let (repository, listing) = try await session.openWithListing()
        let cache = session.cacheDirectory
        var snapshots: [Snapshot] = []
        var damaged: [BackupError] = []
        async let reading = MarkedSnapshots.read(repository, listing, cache: cache)
        try await SnapshotList(repository, cache: cache, listing: listing).forEach { _, result in
            switch result {
            case .success(let snapshot):
                let record = snapshot.record
                if node.map({ $0 == record.node }) ?? true, tag.map({ record.tags.contains($0) }) ?? true,
                    set.map({ $0 == record.set }) ?? true
                {
                    snapshots.append(snapshot)
                }
            case .failure(let error): damaged.append(error)
            }
        }
        let marks = await reading
        if sets {
            try BackupSet.show(BackupSet.group(snapshots), global)
        } else if global.json {
            try Output.document(snapshots.map { SnapshotDocument(snapshot: $0, isWhole: false, marks: marks[$0.id]) })
        } else if snapshots.isEmpty {
            if !global.quiet { Output.line("no snapshots") }
        } else {
            Output.table(
                ["ID", "TIME (UTC)", "NODE", "CONSISTENCY", "STARTS", "MARKS", "SIZE", "READ", "TAGS", "VOLUME"],
                snapshots.map { row($0, marks[$0.id]) }, right: [6, 7])
        }
        for error in damaged { Output.report(error) }
        if !damaged.isEmpty { throw ExitCode(BackupError.Code.damaged.exitStatus) }
    }

    private func row(_ snapshot: Snapshot, _ marks: SnapshotMarks?) -> [String] {
        let record = snapshot.record
        let consistency = record.consistency.rawValue + (record.complete ? "" : ", incomplete")
        return [
            String("\(snapshot.id)".prefix(8)), shortTime(record.started), record.node, consistency,
            record.inspection.map { $0.starts ? "yes" : "no" } ?? "-", marks?.words ?? "?",
            formatBytes(record.statistics["bytes_total"] ?? 0),
            formatBytes(record.statistics["bytes_read"] ?? 0),
            record.tags.joined(separator: ","), record.volume,
        ]
    }
}

struct ShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Show all that one snapshot says of itself.")

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Snapshot: id, prefix, latest or latest@NODE.") var snapshot: String

    mutating func run() async throws {
        let session = Session(options: global)
        let (repository, listing) = try await session.openWithListing()
        let cache = session.cacheDirectory
        async let reading = MarkedSnapshots.read(repository, listing, cache: cache)
        let found = try await repository.select(snapshot, cache: cache, listing: listing)
        let marks = await reading[found.id]
        if global.json { return try Output.document(SnapshotDocument(snapshot: found, marks: marks)) }
        let record = found.record
        var rows = [
            ["snapshot", "\(found.id)"], ["volume", record.volume], ["kind", record.kind.rawValue],
            ["node", record.node], ["started", record.started], ["finished", record.finished],
            ["capture", "\(record.capture) (\(record.consistency.rawValue))"],
            ["complete", record.complete ? "yes" : "no"], ["parent", record.parent ?? "-"],
            ["tags", record.tags.joined(separator: ", ")], ["set", record.set ?? "-"], ["cluster", record.cluster ?? "-"],
            ["agent", record.agent],
        ]
        if let policy = record.policy {
            let schedule = policy.schedule.map { ", schedule \($0)" } ?? ""
            rows.append(["policy", printable((policy.name + schedule).utf8)])
        }
        if let keepFor = record.keepFor { rows.append(["keep for", formatDuration(keepFor)]) }
        if let seen = record.inspection {
            rows.append(["qdrant", seen.version ?? "of an unknown version"])
            rows.append(["holds", "about \(seen.points) points in \(seen.collections) collections"])
            rows.append(["starts", seen.starts ? "yes" : "no; see 'bgbackup inspect \("\(found.id)".prefix(8))'"])
            for finding in seen.findings {
                rows.append(["finding", "\(finding.severity) \(finding.code) \(printable(finding.path.utf8))"])
            }
        }
        if let architecture = record.architecture { rows.append(["machine", printable(architecture.utf8)]) }
        if let fingerprint = record.fingerprint { rows.append(["fingerprint", fingerprint.summary]) }
        rows += marks?.rows ?? []
        for (name, value) in record.statistics.sorted(by: { $0.key < $1.key }) {
            rows.append([name.replacing("_", with: " "), name.hasPrefix("bytes") ? formatBytes(value) : "\(value)"])
        }
        for problem in record.problems { rows.append(["problem", problem]) }
        let width = rows.map { $0[0].count }.max() ?? 0
        for row in rows where !row[1].isEmpty {
            Output.line(row[0] + String(repeating: " ", count: width - row[0].count) + "  " + row[1])
        }
    }
}

struct ListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List what a snapshot holds.")

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Snapshot: id, prefix, latest or latest@NODE.") var snapshot: String
    @Argument(help: "Only this path and what is below it, relative to the volume's root.") var path: String?
    @Flag(name: [.customShort("l"), .customLong("long")], help: "Mode, owner, size and time too.") var long = false

    struct Line: Encodable {
        let path: String
        /// Set where the path is not UTF-8.
        let path_hex: String?
        let type: String
        let mode: UInt32?
        let uid: UInt32?
        let gid: UInt32?
        let size: Int64?
        let mtime: String?
        let target: String?
    }

    mutating func run() async throws {
        let repository = try await Session(options: global).open()
        let found = try await repository.select(snapshot)
        let wanted = path.map { snapshotPath($0) } ?? []
        var matched = wanted.isEmpty
        let (json, long) = (global.json, long)
        try await repository.forEachEntry(of: found) { entry in
            guard wanted.isEmpty || entry.path == wanted || entry.path.starts(with: wanted + [UInt8(ascii: "/")]) else {
                return
            }
            matched = true
            if entry.path.isEmpty, !json { return }
            let line = Self.line(entry)
            if json {
                try Output.document(line, lines: true)
            } else if long {
                Output.line(Self.long(line))
            } else {
                Output.line(line.path)
            }
        }
        guard matched else {
            throw BackupError(
                .noSuchPath, "snapshot \(found.id) holds no \(path ?? "")",
                hint: "Paths are relative to the volume's root.")
        }
    }

    private static func line(_ entry: Entry) -> Line {
        let path = printable(entry.path)
        let hex = String(validating: entry.path, as: UTF8.self) == nil ? entry.path.hex : nil
        switch entry.kind {
        case .file(let data, let content):
            return Line(
                path: path, path_hex: hex, type: "file", mode: data.mode, uid: data.owner, gid: data.group,
                size: content.size, mtime: formatTimeExact(data.modified), target: nil)
        case .directory(let data):
            return Line(
                path: path, path_hex: hex, type: "directory", mode: data.mode, uid: data.owner, gid: data.group,
                size: nil, mtime: formatTimeExact(data.modified), target: nil)
        case .symlink(let data, let target):
            return Line(
                path: path, path_hex: hex, type: "symlink", mode: data.mode, uid: data.owner, gid: data.group,
                size: nil, mtime: formatTimeExact(data.modified), target: printable(target))
        case .hardLink(let target):
            return Line(
                path: path, path_hex: hex, type: "hardlink", mode: nil, uid: nil, gid: nil, size: nil, mtime: nil,
                target: printable(target))
        }
    }

    private static func long(_ line: Line) -> String {
        let kinds = ["file": "-", "directory": "d", "symlink": "l", "hardlink": "h"]
        let bits = (0..<9).map { bit in
            (line.mode ?? 0) & (0o400 >> UInt32(bit)) != 0 ? ["r", "w", "x"][bit % 3] : "-"
        }.joined()
        let size = line.size.map { "\($0)" } ?? "-"
        let owner = "\(line.uid.map { "\($0)" } ?? "-"):\(line.gid.map { "\($0)" } ?? "-")"
        let time = line.mtime.map { shortTime($0) } ?? "-"
        let space = String(repeating: " ", count: max(0, 14 - size.count))
        return
            "\(kinds[line.type] ?? "?")\(line.mode == nil ? "---------" : bits)  \(owner)  \(space)\(size)  \(time)  \(line.path)"
            + (line.target.map { " -> \($0)" } ?? "")
    }
}

struct DiffCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff", abstract: "Show what differs between two snapshots.",
        discussion: "+ added, - removed, M content changed, m only mode, owner, time or attributes.")

    @OptionGroup var global: GlobalOptions
    @Argument(help: "Earlier snapshot.") var first: String
    @Argument(help: "Later snapshot.") var second: String

    struct Line: Encodable {
        let change: String
        let path: String
        let size_before: Int64
        let size_after: Int64
    }

    mutating func run() async throws {
        let repository = try await Session(options: global).open()
        let differences = try await repository.difference(repository.select(first), repository.select(second))
        if global.json {
            return try Output.document(
                differences.map {
                    Line(
                        change: $0.change.rawValue, path: printable($0.path), size_before: $0.sizes.0,
                        size_after: $0.sizes.1)
                })
        }
        let signs: [SnapshotDifference.Change: String] = [.added: "+", .removed: "-", .changed: "M", .metadata: "m"]
        for difference in differences {
            Output.line("\(signs[difference.change]!)  \(difference.path.isEmpty ? "." : printable(difference.path))")
        }
        if !global.quiet {
            func count(_ change: SnapshotDifference.Change) -> Int { differences.filter { $0.change == change }.count }
            Terminal.note(
                "\(count(.added)) added, \(count(.removed)) removed, \(count(.changed)) changed, \(count(.metadata)) with other metadata"
            )
        }
    }
}
