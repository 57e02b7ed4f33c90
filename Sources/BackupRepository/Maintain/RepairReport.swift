import BackupBase

/// What a repair would do, or did, and what is lost.
public struct RepairReport: Sendable {
    /// A file of a snapshot that cannot be given back whole.
    public struct LostFile: Sendable {
        public var path: [UInt8]
        /// Bytes that are lost; empty where it is not known which, or all are.
        public var ranges: [Range<Int64>]
        public var size: Int64
        /// Of what is lost; nil for another name of a file.
        var digest: [UInt8]?
    }

    /// A pack of which something cannot be read.
    public struct Pack: Sendable {
        /// Name of the object.
        public var name: String
        public var problem: String
        /// Blocks that are in other packs now, or would be.
        public var blocksSaved = 0
        public var blocksLost = 0
        /// Put back whole from the second copy, under its own name.
        public var isRestored = false

        public init(name: String, problem: String) { (self.name, self.problem) = (name, problem) }
    }

    public struct Snapshot: Sendable {
        public var damaged: SnapshotName
        public var node: String
        /// The new one; nil in a dry run, and where one was made before.
        public var repaired: SnapshotName?
        /// Made by an earlier repair.
        public var existing: SnapshotName?
        public var filesKept = 0
        public var filesLost: [LostFile] = []
        /// What else is lost, for people: stretches of the manifest.
        public var otherLosses: [String] = []

        /// No new one is made of it.
        public var isNothingLeft = false

        public var isLossy: Bool { !filesLost.isEmpty || !otherLosses.isEmpty }
    }

    /// Second copies that were, or would be, written.
    public var copies: [String] = []
    /// Key slots and closings that nothing mends, each with what is wrong with it.
    public var unmended: [String] = []
    public var index = Repository.ReindexReport()
    public var packs: [Pack] = []
    public var snapshots: [Snapshot] = []
    /// Snapshots of which nothing can be read, with the reason.
    public var unreadable: [(name: SnapshotName, problem: String)] = []
    /// Snapshots that nobody may read, as closings of key pairs say or no longer say, with the reason.
    public var refused: [(name: SnapshotName, problem: String)] = []
    /// Packs that an earlier repair marked as damaged, and of which every block was read now.
    public var wholeAgain = 0

    public init() {}

    /// Whether something is lost, cannot be read or was not mended.
    public var isLossy: Bool {
        !unmended.isEmpty || !unreadable.isEmpty || !refused.isEmpty || snapshots.contains(where: \.isLossy)
    }
    /// Snapshots that go on being reported until they are forgotten.
    public var toForget: [ObjectID] {
        snapshots.filter { $0.repaired != nil || $0.existing != nil || $0.isNothingLeft }.map(\.damaged.id)
            + unreadable.map(\.name.id)
    }
}
