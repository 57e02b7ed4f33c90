@testable import BackupRepository

/// The parsers behind the seal, which a hostile writer can feed: manifest
/// chunks with the validator, contents, parts and snapshot bodies.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 1 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: start + 1, count: count - 1))
    switch start[0] % 4 {
    case 0:
        var validator = ManifestValidator()
        try? ManifestChunk.decode(bytes) { entry in
            try validator.accept(entry)
            precondition(!entry.path.starts(with: Array("../".utf8)), "a path leads outside")
        }
    case 1:
        if let content = try? Content(decoding: bytes[...]) {
            precondition((try? Content(decoding: content.encoded[...])) == content, "a content changes when it is written again")
        }
    case 2: _ = try? Content.Part(decoding: bytes, size: 1 << 30, blocks: 1 << 14)
    default: _ = try? Snapshot(id: ObjectID(bytes: [UInt8](repeating: 0, count: 16)), decoding: bytes)
    }
    return 0
}
