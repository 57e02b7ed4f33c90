import BackupBase
import BackupEngine
import BackupRepository
import Operations
import QdrantStorage

/// What a repository holds and how it came to that, for one page and for machines.
struct RepositoryReport: Encodable {
    let schema = 1
    let repository_id: String
    let repository: String
    let written: String
    let volumes: [Volume]
    /// All objects by kind, now.
    let stored: [StoredKind]
    /// As the prunes that ran on this node counted it, oldest first.
    let storage: [Storage]
    /// Nil where the notes of them cannot be read.
    let drills: [Drill]?
    /// What could not be read.
    let problems: [String]

    struct Volume: Encodable {
        let node: String
        let volume: String
        /// Oldest first.
        let snapshots: [Entry]
    }

    struct Entry: Encodable {
        let snapshot_id: String
        let captured: String
        let consistency: String
        let complete: Bool
        let starts: Bool?
        /// Nil where the notes of it cannot be read.
        let held: Bool?
        let bytes_total: Int64
        let bytes_new: Int64
        let bytes_stored: Int64
        /// Bytes that were new, by what the files hold; of snapshots of older versions not known.
        let bytes_new_by_role: [String: Int64]
        let duration_seconds: Double

        var moment: Double { parseTime(captured) ?? 0 }
    }

    struct Storage: Encodable {
        let measured: String
        let bytes_live: Int64
        let bytes_unused: Int64
        let bytes_locked: Int64

        var moment: Double { parseTime(measured) ?? 0 }
    }

    struct Drill: Encodable {
        let drilled: String
        let snapshot_id: String
        let node: String?
        let passed: Bool
        let recovery_seconds: Double?
        let reason: String?
    }

    /// Snapshots of a volume on a page, the newest.
    static let most = 400
}

extension RepositoryReport {
    /// - Parameters:
    ///   - place: the repository's URL without anything secret
    ///   - history: of this node; nil where there is none
    static func make(_ repository: Repository, place: String, history: RunHistory?) async throws -> RepositoryReport {
        var problems: [String] = []
        let listing = try await SnapshotListing(repository.store)
        async let reading = MarkedSnapshots.read(repository, listing, cache: nil)
        var snapshots: [Snapshot] = []
        try await SnapshotList(repository, cache: nil, listing: listing).forEach { _, result in
            switch result {
            case .success(let snapshot): snapshots.append(snapshot)
            case .failure(let error): problems.append("\(error)")
            }
        }
        let marks = await reading
        if let failure = marks.failure { problems.append(failure) }
        var volumes: [String: (first: SnapshotRecord, entries: [Entry])] = [:]
        var drills: [Drill] = []
        for snapshot in snapshots {
            let (record, id) = (snapshot.record, "\(snapshot.id)")
            let found = marks[snapshot.id]
            volumes["\(record.node)\0\(record.volume)", default: (record, [])].entries.append(
                Entry(snapshot, isHeld: found.map { !$0.holds.isEmpty }))
            drills += (found?.drills ?? []).map {
                Drill(
                    drilled: $0.drilled, snapshot_id: id, node: record.node, passed: $0.passed,
                    recovery_seconds: $0.recoverySeconds.map(rounded), reason: $0.reason)
            }
        }
        let statistics = try await repository.statistics()
        return RepositoryReport(
            repository_id: "\(repository.id)", repository: place, written: formatTime(Ambient.system.now()),
            volumes: volumes.sorted { $0.key < $1.key }.map {
                Volume(node: $0.value.first.node, volume: $0.value.first.volume, snapshots: $0.value.entries)
            },
            stored: StoredKind.all(of: statistics).sorted { $0.bytes > $1.bytes },
            storage: storage(history, place), drills: marks.failure == nil ? drills.sorted { $0.drilled < $1.drilled } : nil,
            problems: problems)
    }

    private static func storage(_ history: RunHistory?, _ place: String) -> [Storage] {
        guard let history else { return [] }
        let prunes = history.read(where: { $0.kind == .prune }).records.filter { $0.repository == place }
        return prunes.sorted { $0.started < $1.started }.compactMap { run in
            guard let all = run.figures.repositoryBytes, let needed = run.figures.repositoryBytesNeeded else { return nil }
            let locked = run.figures.repositoryBytesLocked ?? 0
            return Storage(
                measured: run.started, bytes_live: needed, bytes_unused: max(0, all - needed - locked), bytes_locked: locked)
        }
    }
}

extension RepositoryReport.Entry {
    init(_ snapshot: Snapshot, isHeld: Bool?) {
        let record = snapshot.record
        func number(_ name: String) -> Int64 { record.statistics[name] ?? 0 }
        let duration = parseTime(record.finished).flatMap { end in parseTime(record.started).map { end - $0 } } ?? 0
        self.init(
            snapshot_id: "\(snapshot.id)", captured: record.started, consistency: record.consistency.rawValue,
            complete: record.complete, starts: record.inspection?.starts, held: isHeld, bytes_total: number("bytes_total"),
            bytes_new: number("bytes_new"), bytes_stored: number("bytes_stored"),
            bytes_new_by_role: FileRole.allCases.reduce(into: [:]) { roles, role in
                roles[role.rawValue] = record.statistics["bytes_new_\(role.rawValue)"]
            },
            duration_seconds: rounded(max(0, duration)))
    }
}
