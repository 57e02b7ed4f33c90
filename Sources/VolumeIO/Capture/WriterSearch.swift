import CLinux
import Glibc

/// A process that has files of a volume open for writing.
public struct Writer: Sendable, Hashable {
    public let pid: Int32
    /// Since boot, in clock ticks: with the number, it names a process once and for all.
    public let started: UInt64
    /// As the kernel knows it, 15 characters.
    public let name: String
}

/// Finds out who writes to a volume, or an image file: by the files that processes have open, or
/// mapped and closed again, as Qdrant does.
public struct WriterSearch {
    public private(set) var writers: [Writer] = []
    /// Processes whose files this user may not see.
    public private(set) var hidden = 0

    private struct Identity: Hashable { let device, inode: UInt64 }
    private let directories: [String]
    private let devices: Set<UInt64>
    /// All files of the volume, made when a path alone does not tell: a process
    /// in another mount namespace has other paths.
    private var identities: Set<Identity>?

    public init(_ parts: VolumeParts) {
        directories = parts.all.map(\.directory)
        var devices: Set<UInt64> = []
        for directory in directories {
            var value = stat()
            if stat(directory, &value) == 0 { devices.insert(UInt64(value.st_dev)) }
        }
        self.devices = devices
        search()
    }

    private mutating func search() {
        let own = getpid()
        for name in names(of: "/proc") {
            guard let pid = Int32(name), pid != own, let process = ProcessStat(pid), !process.isKernelThread else {
                continue
            }
            var isHidden = false
            if writesThroughFile(pid, &isHidden) || writesThroughMapping(pid) {
                writers.append(Writer(pid: pid, started: process.started, name: process.name))
            } else if isHidden {
                hidden += 1
            }
        }
    }

    private mutating func writesThroughFile(_ pid: Int32, _ isHidden: inout Bool) -> Bool {
        guard let directory = opendir("/proc/\(pid)/fd") else {
            isHidden = errno == EACCES || errno == EPERM
            return false
        }
        closedir(directory)
        for number in names(of: "/proc/\(pid)/fd") {
            let link = "/proc/\(pid)/fd/\(number)"
            guard let value = fileOnDevices(link), isInVolume(value, link) else { continue }
            if isOpenForWriting(pid, number) { return true }
        }
        return false
    }

    private func fileOnDevices(_ link: String) -> stat? {
        var value = stat()
        guard stat(link, &value) == 0, value.st_mode & S_IFMT == S_IFREG, devices.contains(UInt64(value.st_dev)) else {
            return nil
        }
        return value
    }

    private func isOpenForWriting(_ pid: Int32, _ number: String) -> Bool {
        guard let text = smallFile("/proc/\(pid)/fdinfo/\(number)"),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("flags:") }),
            let flags = Int32(line.dropFirst(6).drop { $0 == "\t" || $0 == " " }, radix: 8)
        else { return false }
        return flags & O_ACCMODE != O_RDONLY
    }

    private mutating func writesThroughMapping(_ pid: Int32) -> Bool {
        for mapping in Self.sharedMappings(pid) {
            if let value = fileOnDevices(mapping.link) {
                if isInVolume(value, mapping.link) { return true }
            } else if access(mapping.link, F_OK) != 0, isNamed(mapping.path) {
                return true
            }
        }
        return false
    }

    /// Files that a process can store into, by the links that lead to them.
    private static func sharedMappings(_ pid: Int32) -> [(link: String, path: Substring)] {
        // Most of some thousand lines are of no interest, and strings are slow.
        (smallFileBytes("/proc/\(pid)/maps") ?? []).split(separator: UInt8(ascii: "\n")).compactMap { line in
            guard let space = line.firstIndex(of: UInt8(ascii: " ")), line.count > space - line.startIndex + 5,
                line[space + 2] == UInt8(ascii: "w"), line[space + 4] == UInt8(ascii: "s")
            else { return nil }
            let fields = String(decoding: line, as: UTF8.self).split(separator: " ", maxSplits: 5)
            guard fields.count == 6, fields[4] != "0" else { return nil }
            return ("/proc/\(pid)/map_files/\(fields[0])", fields[5].drop { $0 == " " })
        }
    }

    /// Links to the files of these file systems that the writers have open, one for each.
    func openFiles() -> [String] {
        var found: [Identity: String] = [:]
        for pid in writers.map(\.pid) {
            let links = names(of: "/proc/\(pid)/fd").map { "/proc/\(pid)/fd/\($0)" }
            for link in links + Self.sharedMappings(pid).map(\.link) {
                guard let value = fileOnDevices(link) else { continue }
                found[Identity(device: UInt64(value.st_dev), inode: UInt64(value.st_ino))] = link
            }
        }
        return Array(found.values)
    }

    private mutating func isInVolume(_ value: stat, _ link: String) -> Bool {
        if let target = linkTarget(link), isNamed(target[...]) { return true }
        if identities == nil { identities = allFiles() }
        return identities!.contains(Identity(device: UInt64(value.st_dev), inode: UInt64(value.st_ino)))
    }

    private func isNamed(_ path: Substring) -> Bool { directories.contains { isBeneath(String(path), $0) } }

    private func allFiles() -> Set<Identity> {
        var found: Set<Identity> = []
        for directory in directories {
            var value = stat()
            if stat(directory, &value) == 0, value.st_mode & S_IFMT == S_IFREG {
                found.insert(Identity(device: UInt64(value.st_dev), inode: UInt64(value.st_ino)))
            }
            guard let tree = try? SourceTree(path: directory) else { continue }
            try? tree.scan(settle: false, exclude: { _, _ in false }, problem: { _ in }) { node in
                found.insert(Identity(device: node.stat.device, inode: node.stat.inode))
            }
        }
        return found
    }
}

/// What /proc/PID/stat says.
struct ProcessStat {
    let name: String
    let isKernelThread: Bool
    let started: UInt64

    init?(_ pid: Int32) {
        guard let text = smallFile("/proc/\(pid)/stat"), let open = text.firstIndex(of: "("),
            let close = text.lastIndex(of: ")")
        else { return nil }
        let fields = text[text.index(after: close)...].split(separator: " ")
        guard fields.count > 20, let flags = UInt64(fields[6]), let started = UInt64(fields[19]) else { return nil }
        name = String(text[text.index(after: open)..<close])
        isKernelThread = flags & 0x0020_0000 != 0  // PF_KTHREAD
        self.started = started
    }
}

/// The names in a directory of /proc or /sys; none where it cannot be read.
func names(of directory: String) -> [String] {
    guard let stream = opendir(directory) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
            $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names
}

func linkTarget(_ path: String) -> String? {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    let count = readlink(path, &buffer, buffer.count - 1)
    guard count > 0 else { return nil }
    return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// The text of a file of /proc or /sys, whose size is not known beforehand; up to 64 MiB.
func smallFile(_ path: String) -> String? { smallFileBytes(path).map { String(decoding: $0, as: UTF8.self) } }

func smallFileBytes(_ path: String) -> [UInt8]? {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while bytes.count < 64 << 20 {
        let count = read(descriptor, &chunk, chunk.count)
        if count < 0, errno == EINTR { continue }
        guard count >= 0 else { return nil }
        if count == 0 { break }
        bytes += chunk[..<count]
    }
    return bytes
}
