import BackupBase
import Foundation
import Glibc
import TestSupport

/// A directory tree that a test makes: names and bytes exactly as it says.
struct Volume {
    let path: String

    init(_ path: String) throws {
        self.path = path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    /// A tree that is there already.
    init(existing path: String) { self.path = path }

    /// The path of something in the volume.
    func callAsFunction(_ name: String) -> String { "\(path)/\(name)" }

    func makeDirectory(_ name: String) throws {
        try FileManager.default.createDirectory(atPath: self(name), withIntermediateDirectories: true)
    }

    /// Writes bytes at an offset; what was never written is a hole.
    func write(_ name: String, _ bytes: [UInt8], at offset: Int64 = 0, size: Int64? = nil) throws {
        if let slash = name.lastIndex(of: "/") { try makeDirectory(String(name[..<slash])) }
        try write(Array(name.utf8), bytes, at: offset, size: size)
    }

    func write(_ name: [UInt8], _ bytes: [UInt8], at offset: Int64 = 0, size: Int64? = nil) throws {
        let full = (Array(path.utf8) + [UInt8(ascii: "/")] + name + [0]).map { CChar(bitPattern: $0) }
        let file = open(full, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        try check(file, "open")
        defer { close(file) }
        if !bytes.isEmpty { try check(pwrite(file, bytes, bytes.count, off_t(offset)) - bytes.count, "write") }
        if let size { try check(ftruncate(file, off_t(size)), "truncate") }
    }

    /// Makes this the whole content.
    func write(_ name: String, _ text: String) throws { try write(name, Array(text.utf8), size: Int64(text.utf8.count)) }

    /// Makes a file of random bytes quickly.
    func writeRandom(_ name: String, megabytes: Int) throws {
        if let slash = name.lastIndex(of: "/") { try makeDirectory(String(name[..<slash])) }
        try shell("head -c \(megabytes)M /dev/urandom > '\(self(name))'")
    }

    func read(_ name: String) throws -> [UInt8] { Array(try Data(contentsOf: URL(filePath: self(name)))) }

    func link(_ existing: String, _ name: String) throws { try check(Glibc.link(self(existing), self(name)), "link") }

    func symlink(_ target: String, _ name: String) throws { try check(Glibc.symlink(target, self(name)), "symlink") }

    func setMode(_ name: String, _ mode: UInt32) throws { try check(chmod(self(name), mode), "chmod") }

    /// Nanoseconds since 1970; of a link itself, not of what it points to.
    func setTime(_ name: String, _ nanoseconds: Int) throws {
        let seconds = Int((Double(nanoseconds) / 1e9).rounded(.down))
        let time = timespec(tv_sec: seconds, tv_nsec: nanoseconds - seconds * 1_000_000_000)
        try check(utimensat(AT_FDCWD, self(name), [time, time], AT_SYMLINK_NOFOLLOW), "utimensat")
    }

    func stat(_ name: String) throws -> Glibc.stat {
        var value = Glibc.stat()
        try check(lstat(self(name), &value), "stat")
        return value
    }

    func exists(_ name: String) -> Bool { access(self(name), F_OK) == 0 }

    /// Runs a shell's words in the volume; throws when they fail.
    @discardableResult
    func shell(_ command: String) throws -> String {
        let result = try Program.run("/bin/sh", ["-ec", command], directory: path)
        guard result.status == 0 else { throw BackupError(.failed, "\(command): \(result.errors)") }
        return result.output
    }

    /// A small volume as tests need it when they do not care: three files, 340 KiB.
    static func small(_ path: String) throws -> Volume {
        let volume = try Volume(path)
        try volume.write("collections/c/config.json", "{\"params\": 1}\n")
        try volume.write("collections/c/0/segments/s/vector_storage/matrix.dat", noise(300 << 10, seed: 1))
        try volume.write("collections/c/0/segments/s/payload_storage/page_0.dat", noise(40 << 10, seed: 2))
        return volume
    }

    private func check(_ result: Int, _ what: String) throws {
        if result < 0 { throw BackupError(.failed, "\(what) in \(path): \(String(cString: strerror(errno)))") }
    }
    private func check(_ result: Int32, _ what: String) throws { try check(Int(result), what) }
}

/// Bytes that look random and are the same each time.
func noise(_ count: Int, seed: UInt64) -> [UInt8] {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    return [UInt8](unsafeUninitializedCapacity: count + 8) { memory, filled in
        for offset in stride(from: 0, to: count, by: 8) {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            UnsafeMutableRawPointer(memory.baseAddress! + offset).storeBytes(of: state ^ (state >> 29), as: UInt64.self)
        }
        filled = count
    }
}

/// Waits until no file that is there now counts as changed a moment ago.
func settle() async throws { try await Task.sleep(for: .milliseconds(2_150)) }
