import BackupBase
import CLinux
import Glibc

/// What a restore needs beyond the rest when it brings an older tree up to date.
extension TargetTree {
    /// Visits the root and everything beneath it with its stat, a directory
    /// before its content. Nothing but directories is opened.
    /// - Throws: `TargetError` for the first thing that cannot be looked at
    public func forEachNode(_ visit: (_ path: [UInt8], FileStat) -> Void) throws(TargetError) {
        let top = try attributed([]) { () throws(SystemError) in
            visit([], try root.stat())
            return try listing([], try root.openBeneath([], O_RDONLY | O_DIRECTORY))
        }
        var levels = [top]
        while let level = levels.last {
            guard let entry = level.next() else {
                levels.removeLast()
                continue
            }
            let path = level.path(of: entry)
            let below = try attributed(path) { () throws(SystemError) -> DirectoryListing? in
                let stat = try level.withName(of: entry) { name throws(SystemError) in try level.directory.stat(name) }
                visit(path, stat)
                guard stat.kind == .directory else { return nil }
                let directory = try level.withName(of: entry) { name throws(SystemError) in
                    try level.directory.open(name, O_DIRECTORY)
                }
                return try listing(path, directory)
            }
            if let below { levels.append(below) }
        }
    }

    private func listing(_ path: [UInt8], _ directory: Descriptor) throws(SystemError) -> DirectoryListing {
        var failure: SystemError?
        let listing = DirectoryListing(path: path, directory: directory) { failure = $0 }
        if let failure { throw failure }
        return listing
    }

    /// Lets the owner change what is in a directory. That there is none is fine.
    public func makeWritable(_ path: [UInt8]) throws(TargetError) {
        if path.isEmpty { return }
        try attributed(path) { () throws(SystemError) in
            do throws(SystemError) {
                let stat = try inParent(of: path) { parent, name throws(SystemError) in try parent.stat(name) }
                guard stat.kind == .directory, stat.mode & S_IRWXU != S_IRWXU else { return }
                try permit(path, stat.permissions | S_IRWXU)
            } catch {
                guard error.errno == ENOENT || error.errno == ENOTDIR else { throw error }
            }
        }
    }
}

extension TargetFile {
    /// Makes a range a hole that reads as zeros. One that reaches to the end is
    /// cut off and put on again, which also frees a last block that the file
    /// fills in part only. Writes zeros where the file system knows no holes.
    public func punch(_ range: Range<Int64>) throws(TargetError) {
        guard !range.isEmpty else { return }
        if range.upperBound >= size { return try cutTail(from: range.lowerBound) }
        if try punchHole(range) { return }
        let zeros = AlignedBuffer(capacity: 1 << 20)
        zeros.memory.initializeMemory(as: UInt8.self, repeating: 0)
        for start in stride(from: range.lowerBound, to: range.upperBound, by: zeros.capacity) {
            let count = min(Int(range.upperBound - start), zeros.capacity)
            try write(UnsafeRawBufferPointer(start: zeros.pointer, count: count), at: start)
        }
    }
}
