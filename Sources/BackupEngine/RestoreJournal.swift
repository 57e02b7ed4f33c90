import VolumeIO

/// Writes the marker: its first line, and how far the restore has come.
struct RestoreJournal {
    private let tree: TargetTree

    init(_ tree: TargetTree) throws { self.tree = tree }

    func begin(_ firstLine: [UInt8]) throws { try tree.writeSmallFile(RestoreMarker.name, firstLine) }

    /// Call when everything up to there is on the disk.
    func note(done: Int) throws { try tree.appendToFile(RestoreMarker.name, Array("done \(done)\n".utf8)) }

    /// Takes the marker away: the restore is whole.
    func end() throws { try tree.remove(Array(RestoreMarker.name.utf8)) }
}
