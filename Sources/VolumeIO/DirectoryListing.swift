import CLinux
import Glibc

/// One directory being scanned: its names, in byte order, and how far the scan got.
final class DirectoryListing {
    struct Entry {
        /// Where in `names` the name begins; a NUL ends it.
        fileprivate var start: Int
        fileprivate var length: Int
        /// DT_… as the directory says it, DT_UNKNOWN where it does not.
        var type: Int
    }

    let path: [UInt8]
    let directory: Descriptor
    private var names: [UInt8] = []
    private var entries: [Entry] = []
    private var position = 0
    /// Files opened ahead of the scan; the first belongs to the entry handed out last.
    private var ahead: ArraySlice<Result<Descriptor, SystemError>> = []

    /// Files whose write-out is under way at once. Waiting for 20 000 dirty
    /// files one by one took 2.8 times as long.
    private static let window = 32

    /// Reads all names. `problem` gets the error that ended the reading early:
    /// the names before it are good.
    init(path: [UInt8], directory: Descriptor, problem: (SystemError) -> Void) {
        self.path = path
        self.directory = directory
        do throws(SystemError) {
            try readNames()
        } catch {
            problem(error)
        }
        sort()
    }

    /// The next entry, or nil after the last.
    func next() -> Entry? {
        guard position < entries.count else { return nil }
        position += 1
        return entries[position - 1]
    }

    /// The entry's path from the root of the tree.
    func path(of entry: Entry) -> [UInt8] {
        let name = names[entry.start..<entry.start + entry.length]
        if path.isEmpty { return Array(name) }
        var joined: [UInt8] = []
        joined.reserveCapacity(path.count + 1 + entry.length)
        joined += path
        joined.append(UInt8(ascii: "/"))
        joined += name
        return joined
    }

    /// Calls with the entry's name as a C string.
    func withName<Value>(
        of entry: Entry, _ body: (UnsafePointer<CChar>) throws(SystemError) -> Value
    ) throws(SystemError) -> Value {
        try names.withUnsafeBufferPointer { memory throws(SystemError) in
            try body(UnsafeRawPointer(memory.baseAddress! + entry.start).assumingMemoryBound(to: CChar.self))
        }
    }

    /// Opens the entry handed out last, a regular file, and with `settle` has
    /// its dirty pages cleaned. The files that follow it are then opened too and
    /// their pages on the way to the disk.
    func openFile(_ entry: Entry, settle: Bool) throws(SystemError) -> Descriptor {
        guard settle else { return try open(entry) }
        if ahead.isEmpty { openAhead() }
        let file: Descriptor
        if let opened = ahead.popFirst() { file = try opened.get() } else { file = try open(entry) }
        try file.clean()
        return file
    }

    /// The entry handed out last is passed over: so is what was opened for it.
    func skip(_ entry: Entry) {
        if entry.type == DT_REG { _ = ahead.popFirst() }
    }

    private func open(_ entry: Entry) throws(SystemError) -> Descriptor {
        try withName(of: entry) { name throws(SystemError) in try directory.open(name, 0) }
    }

    /// The entry handed out last and the regular files right after it. Never
    /// past anything else, so that no file stays open while a subdirectory is
    /// scanned.
    private func openAhead() {
        var opened: [Result<Descriptor, SystemError>] = []
        for index in position - 1..<min(position - 1 + Self.window, entries.count) {
            guard entries[index].type == DT_REG else { break }
            do throws(SystemError) {
                let file = try open(entries[index])
                _ = try? file.call("sync") { bgb_sync_range($0, 0, 0, UInt32(BGB_SYNC_WRITE)) }
                opened.append(.success(file))
            } catch {
                opened.append(.failure(error))
            }
        }
        ahead = opened[...]
    }

    private func readNames() throws(SystemError) {
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
        defer { scratch.deallocate() }
        while true {
            let count = try directory.call("list") { bgb_getdents($0, scratch.baseAddress!, scratch.count) }
            guard count > 0 else { return }
            parse(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
        }
    }

    /// struct linux_dirent64: inode 8, offset 8, record length 2, type 1, name and NUL.
    private func parse(_ records: UnsafeRawBufferPointer) {
        var at = 0
        while at < records.count {
            let record = records.baseAddress! + at
            at += Int(record.loadUnaligned(fromByteOffset: 16, as: UInt16.self))
            let name = UnsafeRawBufferPointer(start: record + 19, count: strlen(record + 19))
            if name.elementsEqual(".".utf8) || name.elementsEqual("..".utf8) { continue }
            entries.append(
                Entry(
                    start: names.count, length: name.count,
                    type: Int(record.load(fromByteOffset: 18, as: UInt8.self))))
            names += name
            names.append(0)
        }
    }

    /// By the bytes of the names, and each name once: a directory that changes
    /// while it is read may give one twice.
    private func sort() {
        names.withUnsafeBytes { memory in
            func order(_ one: Entry, _ other: Entry) -> Int32 {
                guard let base = memory.baseAddress else { return 0 }
                return memcmp(base + one.start, base + other.start, min(one.length, other.length) + 1)
            }
            entries.sort { order($0, $1) < 0 }
            var last: Entry?
            entries.removeAll { entry in
                defer { last = entry }
                guard let last else { return false }
                return order(last, entry) == 0
            }
        }
    }
}

private func strlen(_ bytes: UnsafeRawPointer) -> Int {
    Int(Glibc.strlen(bytes.assumingMemoryBound(to: CChar.self)))
}
