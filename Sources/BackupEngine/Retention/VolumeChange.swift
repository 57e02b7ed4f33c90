import BackupBase

/// How much of a volume a backup found new, and what compressing made of it.
public struct VolumeChange: Sendable, Codable, Equatable {
    /// Bytes of the volume, of its blocks that no pack held before, and of the packs they went into.
    public var total: Int64
    public var new: Int64
    public var stored: Int64

    public init(total: Int64, new: Int64, stored: Int64) {
        (self.total, self.new, self.stored) = (total, new, stored)
    }

    /// Of a snapshot's statistics; nil where one is missing.
    init?(_ statistics: [String: Int64]) {
        guard let total = statistics["bytes_total"], let new = statistics["bytes_new"], let stored = statistics["bytes_stored"],
            total >= 0, new >= 0, stored >= 0
        else { return nil }
        self.init(total: total, new: new, stored: stored)
    }

    /// Share of the volume that is new, 0 to 1.
    var changed: Double { min(1, Double(new) / Double(max(total, 1))) }

    /// What is left of a byte that is new; nil of too little to tell.
    var compressed: Double? { new >= Self.leastSample ? Double(stored) / Double(new) : nil }

    /// Below, headers and metadata are most of what is stored.
    private static let leastSample: Int64 = 256 << 10
}

/// A backup that changed much more of its volume than those before it, into
/// something that does not compress: encryption by somebody else looks like that.
public struct ChangeAnomaly: Sendable, Equatable {
    /// Share of the volume that was new; what is usual (the median), and the most that would pass.
    public let changed, changedUsual, changedLimit: Double
    /// What was left of a byte by compression; usual, and the most that would pass.
    public let compressed, compressedUsual, compressedLimit: Double

    /// Backups that are looked back at, and that there have to be.
    static let window = 20
    static let leastHistory = 5
    /// Bytes: less is nothing to cry about.
    static let leastNew: Int64 = 4 << 20

    /// Compares a backup with those before it, by their median and the median
    /// of the distances from it (MAD), which a few odd ones do not move.
    /// Nil where it is as usual, and where too little is known.
    ///
    /// Floors, because a volume at rest has no spread at all: a fifth of the
    /// volume more than usual passes, and so does what compresses by 5 %. Where
    /// the data never compresses nothing can be told.
    public init?(_ change: VolumeChange, after history: [VolumeChange]) {
        let recent = history.suffix(Self.window)
        guard recent.count >= Self.leastHistory, change.new >= Self.leastNew, let compressed = change.compressed,
            let shares = Spread(recent.map(\.changed)), let sizes = Spread(recent.compactMap(\.compressed)),
            sizes.median <= 0.98
        else { return nil }
        let changedLimit = min(0.95, shares.median + max(6 * shares.deviation, 0.2))
        let compressedLimit = min(0.99, max(0.95, sizes.median + max(4 * sizes.deviation, 0.05)))
        guard change.changed > changedLimit, compressed > compressedLimit else { return nil }
        (changed, changedUsual, self.changedLimit) = (change.changed, shares.median, changedLimit)
        (self.compressed, compressedUsual, self.compressedLimit) = (compressed, sizes.median, compressedLimit)
    }

    /// For people.
    public var description: String {
        func percent(_ share: Double) -> String { "\(Int((share * 100).rounded())) %" }
        return
            "\(percent(changed)) of the volume is new (usually \(percent(changedUsual)), at most \(percent(changedLimit))) and compressed to \(percent(compressed)) (usually \(percent(compressedUsual)), at most \(percent(compressedLimit))), as if somebody had encrypted it"
    }

    /// Those of a volume that are out of its band, by position. What is out and
    /// was not accepted does not widen the band for the next.
    static func find(_ changes: [VolumeChange?], accepted: (Int) -> Bool) -> [(index: Int, anomaly: ChangeAnomaly)] {
        var usual: [VolumeChange] = []
        var found: [(index: Int, anomaly: ChangeAnomaly)] = []
        for (index, change) in changes.enumerated() {
            guard let change else { continue }
            if !accepted(index), let anomaly = ChangeAnomaly(change, after: usual) {
                found.append((index, anomaly))
            } else {
                usual.append(change)
            }
        }
        return found
    }
}

/// Where numbers lie and how far apart, as the bulk of them has it.
private struct Spread {
    let median: Double
    /// What would be the standard deviation of normal numbers with this MAD.
    let deviation: Double

    init?(_ numbers: [Double]) {
        guard let median = Self.median(numbers), let distance = Self.median(numbers.map { abs($0 - median) }) else { return nil }
        self.median = median
        deviation = 1.4826 * distance
    }

    private static func median(_ numbers: [Double]) -> Double? {
        guard !numbers.isEmpty else { return nil }
        let sorted = numbers.sorted()
        return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
    }
}
