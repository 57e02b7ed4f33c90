import BackupBase
import Foundation
import Glibc
import TestSupport

/// A process that counts in two files of a volume at once, through mappings: in
/// the first and then in the second, tens of thousands of times a second. At every moment the
/// second is equal to the first or one behind; a copy in which it is not mixes
/// two moments. Beside them it makes, renames and removes small files.
final class TwinWriter {
    let process = Process()
    private let volume: String

    /// In a volume the pair stands at both ends, with everything else between.
    static let first = "aliases/first.dat"
    static let second = "collections_meta_wal/second.dat"

    private static let script = """
        import mmap, os, struct, sys, time
        root, first, second, started = sys.argv[1:]
        pages = 64
        def mapping(name):
            path = os.path.join(root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT)
            os.ftruncate(file, pages * 4096)
            memory = mmap.mmap(file, pages * 4096, mmap.MAP_SHARED)
            os.close(file)  # as the database does: mapped, and no descriptor
            return memory
        one, other = mapping(first), mapping(second)
        open(started, "w").close()
        count = 0
        while True:
            count += 1
            place = count % (pages - 1) * 4096 + 4096
            one[place:place + 8] = one[0:8] = struct.pack("<Q", count)
            other[0:8] = other[place:place + 8] = struct.pack("<Q", count)
            if count % 100 == 0: time.sleep(0.001)  # a backup gets only what others leave
            if count % 500 == 0:
                name = os.path.join(root, "collections", f"made-{count % 5000}")
                with open(name + ".new", "w") as file: file.write(str(count))
                os.rename(name + ".new", name)
        """

    init(_ volume: String) throws {
        self.volume = volume
        let started = "\(volume)/../twin-\(UUID().uuidString)"
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", Self.script, volume, Self.first, Self.second, started]
        try process.run()
        while access(started, F_OK) != 0 {
            guard process.isRunning else { throw BackupError(.failed, "the writing process did not start") }
            usleep(1000)
        }
        unlink(started)
    }

    var pid: Int32 { process.processIdentifier }

    /// How far it is, read from its file.
    func count() throws -> UInt64 { try Self.count(volume, Self.first) }

    /// Whether it goes on counting.
    func isWriting() throws -> Bool {
        let before = try count()
        for _ in 0..<500 {
            usleep(2000)
            if try count() != before { return true }
        }
        return false
    }

    /// The two counts of a tree.
    static func counts(_ tree: String) throws -> (UInt64, UInt64) {
        (try count(tree, first), try count(tree, second))
    }

    static func isOneMoment(_ tree: String) throws -> Bool {
        let (first, second) = try counts(tree)
        return second == first || second + 1 == first
    }

    private static func count(_ tree: String, _ name: String) throws -> UInt64 {
        let file = open("\(tree)/\(name)", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw BackupError(.failed, "no \(tree)/\(name)") }
        defer { close(file) }
        var value: UInt64 = 0
        guard pread(file, &value, 8, 0) == 8 else { throw BackupError(.failed, "no count in \(name)") }
        return UInt64(littleEndian: value)
    }

    func stop() {
        kill(pid, SIGKILL)
        process.waitUntilExit()
    }

    deinit { stop() }
}
