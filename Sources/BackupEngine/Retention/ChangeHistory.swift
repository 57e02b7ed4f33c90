import BackupBase
import BackupRepository
import FoundationEssentials

/// What the node remembers of how its backups of a volume changed it, since a
/// writer cannot read the snapshots that say so. Disposable: lost, the next
/// few backups warn of nothing. Who forgets judges by the snapshots.
struct ChangeHistory {
    private let path: String
    private var changes: [VolumeChange]

    private static let sizeLimit = 64 << 10

    init(path: String) {
        self.path = path
        let bytes = LocalFile.read(path, limit: Self.sizeLimit) ?? []
        changes = (try? JSONDecoder().decode([VolumeChange].self, from: Data(bytes))) ?? []
    }

    /// Compares a change with those before it and remembers it, an odd one too:
    /// nobody accepts it here, and what becomes usual is no news.
    mutating func add(_ change: VolumeChange) -> ChangeAnomaly? {
        let anomaly = ChangeAnomaly(change, after: changes)
        changes = (changes + [change]).suffix(ChangeAnomaly.window)
        if let bytes = try? JSONEncoder().encode(changes) { _ = LocalFile.replace(path, with: Array(bytes), durably: false) }
        return anomaly
    }
}

extension BackupRun {
    /// - Parameter place: of the volume in the state directory; nil where there is none
    func noteChange(_ place: String?, _ record: SnapshotRecord) {
        guard let place, let change = VolumeChange(record.statistics) else { return }
        var history = ChangeHistory(path: "\(place).changes")
        guard let anomaly = history.add(change) else { return }
        report.anomaly = anomaly
        report.warnings.append(
            "\(anomaly.description); 'bgbackup forget' keeps all snapshots of this volume until somebody has looked at it")
    }
}
