import CLinux
import Glibc

/// A run's file while it is written: below another name until it is whole.
///
/// Pages of records and of the filter come in together and are kept one behind
/// the other: records from the start, the filter from a page that is known before.
final class RunFile {
    private struct Stream {
        let start: Int
        var pending: [UInt8] = []
        var written = 0
        /// What the disk did not take.
        var overflow: [UInt8] = []
    }

    private let path: String
    private let descriptor: Int32
    private var records: Stream
    private var filter: Stream
    private var failed = false

    /// - Parameter filterAt: the page from which on the filter stands
    init?(path: String, filterAt: Int) {
        self.path = path
        descriptor = open(path + ".new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        records = Stream(start: 0)
        filter = Stream(start: filterAt * IndexRun.pageSize)
        if descriptor < 0 { return nil }
    }

    func append(_ page: [UInt8]) { add(page, to: &records) }
    func appendFilter(_ page: [UInt8]) { add(page, to: &filter) }

    private func add(_ bytes: [UInt8], to stream: inout Stream) {
        stream.pending += bytes
        if stream.pending.count >= 1 << 20 { flush(&stream) }
    }

    private func flush(_ stream: inout Stream) {
        let count = stream.pending.count
        if !failed {
            let offset = off_t(stream.start + stream.written)
            let written = stream.pending.withUnsafeBytes { pwrite(descriptor, $0.baseAddress, count, offset) }
            failed = written != count
            if !failed { stream.written += count }
        }
        if failed { stream.overflow += stream.pending }
        stream.pending = []
    }

    /// The open, complete file, or nil when the cache could not take it.
    func finish(head: [UInt8]) -> Int32? {
        flush(&records)
        flush(&filter)
        var end = Stream(start: filter.start + filter.written, pending: head)
        flush(&end)
        // No fsync: a run that a power cut tears fails its checksums and is made anew.
        guard !failed, rename(path + ".new", path) == 0 else { return nil }
        return descriptor
    }

    /// The pages of both, after a failure; nil where the file does not give them back as they were.
    func recover() -> (records: [UInt8], filter: [UInt8])? {
        defer {
            close(descriptor)
            unlink(path + ".new")
        }
        guard let records = recover(records), let filter = recover(filter) else { return nil }
        return (records, filter)
    }

    private func recover(_ stream: Stream) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(stream.written + stream.overflow.count)
        let first = stream.start / IndexRun.pageSize
        for number in first..<first + stream.written / IndexRun.pageSize {
            guard let page = IndexRun.readPage(descriptor, number) else { return nil }
            bytes += page
        }
        return bytes + stream.overflow
    }
}
