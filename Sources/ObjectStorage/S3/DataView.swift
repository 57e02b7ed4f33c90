import BackupBase
import FoundationEssentials

/// Part of a buffer as `Data`, without a copy: what swift-crypto hashes fastest.
/// The buffer must outlive it.
func dataView(_ buffer: AlignedBuffer, _ range: Range<Int>) -> Data {
    Data(bytesNoCopy: buffer.pointer + range.lowerBound, count: range.count, deallocator: .none)
}
