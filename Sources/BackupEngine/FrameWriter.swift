import BackupBase
import BackupRepository
import Glibc
import ObjectStorage
import VolumeIO

/// Files of the target that are open for writing: the most recently used ones.
final class OutputFiles: Sendable {
    private struct Open {
        var files: [Int: (file: TargetFile, used: Int)] = [:]
        var clock = 0
    }
    private let open = Locked(Open())
    private let make: @Sendable (Int) throws -> TargetFile
    private static let limit = 128

    init(_ tree: TargetTree, _ plan: RestorePlan) {
        make = { index in
            let file = plan.files[index]
            let output = try tree.openForWriting(file.path)
            // Reserved first, written after: the extents of a file lie together,
            // and direct writes need no allocation of their own.
            for range in file.dataRanges { output.preallocate(range) }
            return output
        }
    }

    /// For a device or image: every file is this one.
    init(_ single: TargetFile) { make = { _ in single } }

    func file(_ index: Int) throws -> TargetFile {
        let known: TargetFile? = open.withLock { open in
            open.clock += 1
            open.files[index]?.used = open.clock
            return open.files[index]?.file
        }
        if let known { return known }
        let file = try make(index)
        open.withLock { open in
            open.files[index] = (file, open.clock)
            if open.files.count > Self.limit, let oldest = open.files.min(by: { $0.value.used < $1.value.used }) {
                open.files[oldest.key] = nil
            }
        }
        return file
    }
}

/// Carries out reads of a plan, any number at once: get, open, verify, write.
final class FrameWriter: Sendable {
    struct Outcome: Sendable {
        var written: Int64 = 0
        var kept: Int64 = 0
        var fetched: Int64 = 0
        var busy = BusyTimes()
    }

    private let repository: Repository
    private let plan: RestorePlan
    private let outputs: OutputFiles
    /// Look at what is there and write only what differs.
    private let compare: Bool
    private let board: ProgressBoard
    /// Bytes from the target's start that are held back and written last:
    /// a device that is not whole must not look like one.
    private let heldBack: Int64
    private let held = Locked<[(file: Int, offset: Int64, bytes: [UInt8])]>([])
    private let scratch = BufferPool(size: PackLimits.frame, keep: 8)

    init(
        repository: Repository, plan: RestorePlan, outputs: OutputFiles, compare: Bool, board: ProgressBoard,
        heldBack: Int64 = 0
    ) {
        self.repository = repository
        self.plan = plan
        self.outputs = outputs
        self.compare = compare
        self.board = board
        self.heldBack = heldBack
    }

    func perform(_ read: RestorePlan.Read) async throws -> Outcome {
        let reader = repository.reader
        let pack = try await reader.pack(read.pack)
        var outcome = Outcome()
        var pending = read.runs[...]
        var clock = monotonicSeconds()
        // Each counts what passed since the last.
        func lap() -> Double {
            let before = clock
            clock = monotonicSeconds()
            return clock - before
        }
        do {
            let frames = try await reader.read(read.frames, of: pack)
            outcome.busy.fetch += lap()
            outcome.fetched = Int64(frames.count)
            for number in read.frames {
                let runs = pending.prefix { pack.holds($0.first, in: number) }
                pending = pending.dropFirst(runs.count)
                guard !runs.isEmpty else { continue }
                let frame = try reader.open(number, in: frames)
                defer { reader.release(frame) }
                let ranges = frame.ranges
                var verified = frame.blocks.lowerBound
                for run in runs {
                    // Runs come in ascending order and may share blocks: each block is hashed once.
                    for ordinal in max(verified, run.first)..<max(verified, run.first + run.count) {
                        try reader.verify(ordinal, ranges[ordinal - frame.blocks.lowerBound], of: frame)
                    }
                    verified = max(verified, run.first + run.count)
                    outcome.busy.verify += lap()
                    try write(run, frame, ranges, &outcome)
                    outcome.busy.write += lap()
                }
            }
        } catch var error as BackupError where error.code == .damaged {
            let paths = Set(pending.map(\.file)).prefix(5).map { printable(plan.files[$0].path) }.sorted()
            error.message += ", which concerns \(paths.joined(separator: ", ")) of snapshot \(plan.snapshot.id)"
            throw error
        }
        // What the loop passed over would be left as a hole, in silence.
        guard pending.isEmpty else {
            throw BackupError(
                .failed, "a read of pack \(read.pack) left \(pending.count) runs unwritten: this is a defect of bgbackup")
        }
        return outcome
    }

    /// Writes a run's blocks, which stand together in the frame and in the file.
    private func write(
        _ run: RestorePlan.Run, _ frame: PackReader.Frame, _ ranges: [Range<Int>], _ outcome: inout Outcome
    ) throws {
        let file = plan.files[run.file]
        let first = ranges[run.first - frame.blocks.lowerBound].lowerBound
        let last = ranges[run.first + run.count - 1 - frame.blocks.lowerBound].upperBound
        let start = Int64(run.block) * Int64(file.blockSize)
        let output = try outputs.file(run.file)
        var end = start
        for range in file.intersections(start..<start + Int64(last - first)) {
            try expectHole(end..<range.lowerBound, frame, from: first - Int(start))
            end = range.upperBound
            let from = first + Int(range.lowerBound - start)
            let part = UnsafeRawBufferPointer(rebasing: frame.buffer.bytes[from..<from + range.count])
            try put(part, at: range.lowerBound, run.file, output, &outcome)
        }
        try expectHole(end..<start + Int64(last - first), frame, from: first - Int(start))
        board.update { $0.bytesDone += Int64(last - first) }
    }

    /// What is not in a data range is a hole and must read as zeros: bytes there
    /// would be lost, and the file would not be what its digest names.
    private func expectHole(_ range: Range<Int64>, _ frame: PackReader.Frame, from base: Int) throws {
        guard !range.isEmpty else { return }
        let part = frame.buffer.bytes[base + Int(range.lowerBound)..<base + Int(range.upperBound)]
        guard UnsafeRawBufferPointer(rebasing: part).isZero else {
            throw BackupError(.damaged, "a block of pack \(frame.pack.id) holds data where its file has a hole")
        }
    }

    private func put(
        _ bytes: UnsafeRawBufferPointer, at offset: Int64, _ file: Int, _ output: TargetFile, _ outcome: inout Outcome
    ) throws {
        if offset < heldBack {
            held.withLock { $0.append((file, offset, Array(bytes))) }
            return
        }
        // Zeros that are a hole so far have to be written all the same.
        if compare, !bytes.isZero, try isThere(bytes, at: offset, output) {
            outcome.kept += Int64(bytes.count)
            return
        }
        try output.write(bytes, at: offset)
        outcome.written += Int64(bytes.count)
    }

    private func isThere(_ bytes: UnsafeRawBufferPointer, at offset: Int64, _ output: TargetFile) throws -> Bool {
        guard offset % Int64(AlignedBuffer.alignment) == 0 else { return false }
        let present = scratch.take()
        defer { scratch.give(present) }
        let got = try output.read(at: offset, count: bytes.count, into: present)
        return got == bytes.count && memcmp(present.pointer, bytes.baseAddress!, got) == 0
    }

    /// Writes what was held back.
    func writeHeldBack() throws -> Int64 {
        try held.withLock { held in
            var written: Int64 = 0
            for (file, offset, bytes) in held {
                let aligned = AlignedBuffer(copying: bytes)
                try outputs.file(file).write(aligned.bytes, at: offset)
                written += Int64(bytes.count)
            }
            held = []
            return written
        }
    }
}

extension RestorePlan {
    /// Bytes of file content that a read brings.
    func bytes(of read: Read) -> Int64 {
        read.runs.reduce(0) { sum, run in
            let file = files[run.file]
            let start = Int64(run.block) * Int64(file.blockSize)
            return sum + min(Int64(run.count) * Int64(file.blockSize), file.size - start)
        }
    }
}
