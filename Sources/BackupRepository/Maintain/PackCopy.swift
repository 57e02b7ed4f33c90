import BackupBase
import FoundationEssentials
import ObjectStorage

/// A whole pack in memory, checked as far as the keys reach: its header and
/// trailer always, each frame's seal with the private key. Nothing is inflated.
struct PackCopy {
    let id: ObjectID
    let buffer: AlignedBuffer
    let trailer: PackTrailer

    /// Reads the pack. Throws `.damaged` and names it.
    static func read(_ id: ObjectID, from repository: Repository) async throws -> PackCopy {
        let name = FinishedPack.name(id)
        do {
            let bytes = try await repository.store.get(name, .all, limit: PackLimits.pack)
            let buffer = AlignedBuffer(capacity: bytes.count)
            bytes.withBytes { buffer.memory.copyMemory(from: $0) }
            buffer.count = bytes.count
            return try PackCopy(checking: buffer, id, repository.keys)
        } catch let error as FormatError {
            throw BackupError(.damaged, "pack \(name) is damaged", hint: PackReader.hint, cause: error)
        } catch let error as StoreError where error.kind == .notFound {
            throw PackReader.missing(name)
        } catch let error as StoreError where error.kind == .tooLarge {
            throw BackupError(.damaged, "pack \(name) is damaged", hint: PackReader.hint, cause: error)
        }
    }

    private init(checking buffer: AlignedBuffer, _ id: ObjectID, _ keys: KeyRing) throws {
        let bytes = buffer.bytes
        guard bytes.count >= ObjectHeader.size + PackFooter.size else { throw FormatError("it is truncated") }
        let header = try ObjectHeader(parsing: Array(bytes[..<ObjectHeader.size]), expecting: .pack, id)
        let footer = try PackFooter(parsing: Array(bytes[(bytes.count - PackFooter.size)...]))
        let end = bytes.count - PackFooter.size
        guard footer.trailerLength + ObjectHeader.size <= end else { throw FormatError("its trailer is longer than the pack") }
        let sealed = UnsafeRawBufferPointer(rebasing: bytes[(end - footer.trailerLength)..<end])
        let plain = try keys.trailerSealing(of: id).open(sealed, position: Sealing.trailer)
        trailer = try PackTrailer(parsing: Array(plain)[...])
        guard trailer.end + footer.trailerLength == end else { throw FormatError("its frames do not fill it") }
        self.id = id
        self.buffer = buffer
        if keys.canRead { try checkFrames(try keys.openObject(header)) }
    }

    private func checkFrames(_ sealing: Sealing) throws {
        for (number, frame) in trailer.frames.enumerated() {
            let head = Array(buffer.bytes[frame.offset..<frame.offset + FrameHeader.size])
            let header = try FrameHeader(parsing: head)
            guard header.ordinal == number, header.sealedLength == frame.sealedLength else {
                throw FormatError("frame \(number): its header is not the trailer's")
            }
            let start = frame.offset + FrameHeader.size
            let body = UnsafeRawBufferPointer(rebasing: buffer.bytes[start..<start + frame.sealedLength])
            do {
                _ = try sealing.open(body, position: UInt64(number), extra: head)
            } catch {
                throw FormatError("frame \(number): \(error)")
            }
        }
    }
}
