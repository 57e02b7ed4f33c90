import Glibc

/// A directory of a test's own, removed with it.
final class TestDirectory: Sendable {
    let path: String

    /// - Parameter parent: where memory is not a file system, so that direct
    ///   I/O and mapped writes behave as on a volume
    init(in parent: String = "/var/tmp") {
        var name = Array("\(parent)/bgbackup-test-XXXXXX".utf8CString)
        precondition(mkdtemp(&name) != nil, "cannot make a directory in \(parent)")
        path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { shell("chmod -R u+rwx '\(path)'; rm -rf '\(path)'") }

    /// Of a name in it, as C wants it; the name may hold any bytes.
    func name(_ relative: [UInt8]) -> [CChar] {
        (Array(path.utf8) + [UInt8(ascii: "/")] + relative + [0]).map { CChar(bitPattern: $0) }
    }
    func name(_ relative: String) -> [CChar] { name(Array(relative.utf8)) }

    func makeDirectory(_ relative: String) {
        must(mkdir(name(relative), 0o755))
    }

    /// Writes the parts at their offsets; what lies between is a hole.
    func write(_ relative: [UInt8], _ parts: [(Int64, [UInt8])], size: Int64? = nil, mode: UInt32 = 0o644) {
        let file = open(name(relative), O_RDWR | O_CREAT | O_CLOEXEC, mode)
        must(file)
        defer { close(file) }
        for (offset, bytes) in parts { must(pwrite(file, bytes, bytes.count, off_t(offset)) - bytes.count) }
        if let size { must(ftruncate(file, off_t(size))) }
    }
    func write(_ relative: String, _ bytes: [UInt8]) { write(Array(relative.utf8), [(0, bytes)]) }

    func setTime(_ relative: [UInt8], _ nanoseconds: Int) {
        let time = timespec(tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
        must(utimensat(AT_FDCWD, name(relative), [time, time], AT_SYMLINK_NOFOLLOW))
    }

    func content(_ relative: String) -> [UInt8]? {
        let file = open(name(relative), O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 1 << 20)
        while case let count = read(file, &part, part.count), count > 0 { bytes += part[..<count] }
        return bytes
    }

    func exists(_ relative: String) -> Bool {
        var value = stat()
        return lstat(name(relative), &value) == 0
    }
}

/// A step of a test's preparation that cannot fail on a working machine.
func must(_ result: some BinaryInteger, _ line: UInt = #line) {
    precondition(result >= 0, "line \(line): \(String(cString: strerror(errno)))")
}

@discardableResult
func shell(_ command: String) -> Bool { Glibc.system("{ \(command); } >/dev/null 2>&1") == 0 }

let isRoot = geteuid() == 0

/// Bytes that look random and are the same each time.
func noise(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    return [UInt8](unsafeUninitializedCapacity: count + 8) { memory, filled in
        for offset in stride(from: 0, to: count, by: 8) {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let word = state ^ (state >> 29)
            UnsafeMutableRawPointer(memory.baseAddress! + offset).storeBytes(of: word, as: UInt64.self)
        }
        filled = count
    }
}

/// Runs the body with this thread's rights to files those of nobody.
func asNobody<Value>(_ body: () throws -> Value) rethrows -> Value {
    typealias Change = @convention(c) (UInt32) -> Int32
    // <sys/fsuid.h> is in no module.
    let change = unsafeBitCast(dlsym(nil, "setfsuid"), to: Change.self)
    _ = change(65534)
    defer { _ = change(0) }
    return try body()
}
