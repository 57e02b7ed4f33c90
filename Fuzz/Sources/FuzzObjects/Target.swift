@testable import BackupRepository

/// Every parser of an object's bytes, chosen by the first byte of the input: a
/// parser may throw, and must not trap, hang or take more memory than the
/// input justifies.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 1 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: start + 1, count: count - 1))
    let id = ObjectID(bytes: [UInt8](repeating: 0, count: 16))
    switch start[0] % 8 {
    case 0:
        if let trailer = try? PackTrailer(parsing: bytes[...]), let again = try? PackTrailer(parsing: trailer.bytes[...]) {
            precondition(again.ids == trailer.ids && again.end == trailer.end, "a trailer changes when it is written again")
        }
    case 1: for kind in ObjectKind.allCases { _ = try? ObjectHeader(parsing: bytes, expecting: kind, id) }
    case 2: _ = try? FrameHeader(parsing: bytes)
    case 3: _ = try? PackFooter(parsing: bytes)
    case 4: _ = try? UnverifiedConfiguration(parsing: bytes)
    case 5: _ = try? KeyRing(writerKeyFile: String(decoding: bytes, as: UTF8.self))
    case 6: _ = SnapshotName(object: SnapshotName.prefix + String(decoding: bytes, as: UTF8.self))
    default: _ = try? Decompression.inflate(.init(bytes), limit: 1 << 20)
    }
    return 0
}
