import BackupBase
import CLinux
import Glibc

extension SourceFile {
    /// Bytes of one read: what the readahead of a file that is read in order grows to.
    private static let piece = 1 << 20

    /// Brings all that it holds into the page cache, for a program that will map it.
    ///
    /// Read in order, the kernel reads far ahead and takes large folios; whoever
    /// touches a cold mapping gets 128 KiB at a time and waits for each.
    /// - Parameter buffer: of 1 MiB or more, which is overwritten
    /// - Returns: bytes that were read; holes are not
    public func warm(through buffer: AlignedBuffer) throws(SourceError) -> Int64 {
        guard let file = descriptor else { return 0 }
        let size = try stat().size
        _ = try? file.call("advise") { posix_fadvise($0, 0, 0, POSIX_FADV_SEQUENTIAL) }
        var warmed: Int64 = 0
        for range in try dataRanges(size: size) {
            var offset = range.lowerBound
            while offset < range.upperBound {
                let count = min(Int(range.upperBound - offset), Self.piece, buffer.capacity)
                let got = try attributed { () throws(SystemError) in
                    try file.call("read") { pread($0, buffer.pointer, count, off_t(offset)) }
                }
                guard got > 0 else { return warmed }
                offset += Int64(got)
                warmed += Int64(got)
            }
        }
        return warmed
    }
}
