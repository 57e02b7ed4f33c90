import BackupBase
import Foundation
import ObjectStorage

@testable import BackupRepository

/// Snapshots one after the other of a volume of segments: half of all blocks are in the first one. Before each further
/// one some segments are written anew, as an optimizer does, and in others blocks change in place.
final class ScaledHistory {
    private struct File {
        let path: String
        let blockSize: Int
        var places: [Location]
        var content: Content
    }

    private let repository: Repository
    private let snapshots: Int
    private let perSnapshot: Int
    private let perSegment: Int
    private var files: [File] = []
    private var segments: [Int] = []
    private var dice = Dice(7)
    private static let perPack = 1000
    private static let perPart = 1024
    private static let inlineLimit = 16 << 10

    init(_ repository: Repository, blocks: Int, snapshots: Int) {
        (self.repository, self.snapshots) = (repository, snapshots)
        perSnapshot = max(blocks / 2 / max(snapshots - 1, 1), 1)
        perSegment = max(min(2500, blocks / 400), 1)
        let count = max(blocks / 2 / perSegment, 1)
        // Of ten files of a volume nine are small.
        for number in 0..<count * 10 {
            let path = String(format: "collections/c/0/segments/%05d/%02d", number / 10, number % 10)
            let isLarge = number % 10 == 0
            if isLarge { segments.append(number) }
            files.append(File(path: path, blockSize: isLarge ? 64 << 10 : 16 << 10, places: [], content: Self.empty))
        }
    }

    private static let empty = Content(
        size: 0, blockSize: 4096, digest: [UInt8](repeating: 0, count: 32),
        layout: .inline(Content.Part(dataRanges: [], extents: Extents())))

    func write() async throws {
        let cache = NSTemporaryDirectory() + "/bgbackup-scale-\(getpid())"
        defer { try? FileManager.default.removeItem(atPath: cache) }
        try await repository.withWriter(cache: cache, width: 1) { writer in
            for number in 1...snapshots {
                let changed = number == 1 ? try await writeAll(writer) : try await change(writer)
                try await describe(changed, writer)
                try await commit(number, writer)
                if number % 50 == 1 { print("\(number) snapshots of \(snapshots)") }
            }
        }
    }

    // MARK: - Blocks

    private func writeAll(_ writer: RepositoryWriter) async throws -> [Int] {
        var tickets: [[Int]] = []
        for index in files.indices { tickets.append(try await store(index % 10 == 0 ? perSegment : 1, writer)) }
        try await writer.settleTickets()
        for index in files.indices { files[index].places = locations(tickets[index], writer) }
        return Array(files.indices)
    }

    /// Three quarters of the new blocks are segments written anew, the others changes in place in ten segments.
    private func change(_ writer: RepositoryWriter) async throws -> [Int] {
        var changed: Set<Int> = []
        var new: [(file: Int, tickets: [Int])] = []
        var rest = perSnapshot
        while rest > perSnapshot / 4, rest >= perSegment {
            new.append((segments.randomElement(using: &dice)!, try await store(perSegment, writer)))
            rest -= perSegment
        }
        let scattered = try await store(rest, writer)
        try await writer.settleTickets()
        inPack = 0
        for (file, tickets) in new {
            files[file].places = locations(tickets, writer)
            changed.insert(file)
        }
        let hit = (0..<10).map { _ in segments.randomElement(using: &dice)! }
        for place in locations(scattered, writer) {
            let file = hit.randomElement(using: &dice)!
            files[file].places[Int(dice.next() >> 33) % files[file].places.count] = place
            changed.insert(file)
        }
        return changed.sorted()
    }
    private var inPack = 0

    private func store(_ count: Int, _ writer: RepositoryWriter) async throws -> [Int] {
        var tickets: [Int] = []
        tickets.reserveCapacity(count)
        while tickets.count < count {
            let buffer = writer.buffers.take()
            let blocks = (0..<min(16, count - tickets.count)).map { slot -> HashedRegion.Block in
                let id = dice.block()
                id.write(to: buffer.pointer + slot * 32)
                return HashedRegion.Block(range: slot * 32..<slot * 32 + 32, id: id)
            }
            buffer.count = blocks.count * 32
            for place in try await writer.add(HashedRegion(buffer: buffer, blocks: blocks), cohort: .mutable) {
                guard case .new(let ticket) = place else { preconditionFailure("ids do not repeat") }
                tickets.append(ticket)
            }
            inPack += blocks.count
            // A pack of 64 MiB has about so many blocks of the sizes of a volume.
            guard inPack >= Self.perPack else { continue }
            try await writer.settleTickets()
            inPack = 0
        }
        return tickets
    }

    private func locations(_ tickets: [Int], _ writer: RepositoryWriter) -> [Location] {
        tickets.map { writer.location(ofTicket: $0) }
    }
    // MARK: - Metadata

    private func describe(_ changed: [Int], _ writer: RepositoryWriter) async throws {
        for index in changed {
            let file = files[index]
            let size = Int64(file.places.count) * Int64(file.blockSize)
            let extents = file.places.reduce(into: Extents()) { $0.append($1) }
            let whole = Content.Part(dataRanges: [0..<size], extents: extents)
            var content = Content(
                size: size, blockSize: file.blockSize, digest: dice.bytes(4), layout: .inline(whole))
            if whole.encoded.count > Self.inlineLimit {
                var parts: [[UInt8]] = []
                for first in stride(from: 0, to: file.places.count, by: Self.perPart) {
                    let part = file.places[first..<min(first + Self.perPart, file.places.count)]
                    let extents = part.reduce(into: Extents()) { $0.append($1) }
                    let length = Int64(part.count) * Int64(file.blockSize)
                    parts.append(Content.Part(dataRanges: [0..<length], extents: extents).encoded)
                }
                content.layout = .indirect(blocksPerPart: Self.perPart, parts: try await metadata(parts, writer))
            }
            files[index].content = content
        }
    }

    private func metadata(_ chunks: [[UInt8]], _ writer: RepositoryWriter) async throws -> Extents {
        var places: [RepositoryWriter.Place] = []
        for chunk in chunks {
            let buffer = writer.buffers.take()
            buffer.memory.copyBytes(from: chunk)
            buffer.count = chunk.count
            let block = HashedRegion.Block(range: 0..<chunk.count, id: repository.keys.blockHasher.id(of: buffer.bytes))
            places += try await writer.add(HashedRegion(buffer: buffer, blocks: [block]), cohort: .metadata)
        }
        try await writer.settleTickets()
        return places.reduce(into: Extents()) { extents, place in
            switch place {
            case .stored(let location): extents.append(location)
            case .new(let ticket): extents.append(writer.location(ofTicket: ticket))
            case .zero: preconditionFailure("metadata is never all zero")
            }
        }
    }

    private static let plain = Entry.Metadata(
        mode: 0o644, owner: 0, group: 0, modified: 1_700_000_000_000_000_000, attributes: [])

    private func commit(_ number: Int, _ writer: RepositoryWriter) async throws {
        var chunker = ManifestChunker()
        var chunks: [[UInt8]] = []
        var folders: Set<String> = []
        func add(_ entry: Entry) throws { if let chunk = try chunker.add(entry) { chunks.append(chunk) } }
        try add(Entry(path: [], kind: .directory(Self.plain)))
        for file in files {
            var folder = ""
            for part in file.path.split(separator: "/").dropLast() {
                folder += (folder.isEmpty ? "" : "/") + part
                guard folders.insert(folder).inserted else { continue }
                try add(Entry(path: Array(folder.utf8), kind: .directory(Self.plain)))
            }
            try add(Entry(path: Array(file.path.utf8), kind: .file(Self.plain, file.content)))
        }
        if let chunk = chunker.finish() { chunks.append(chunk) }
        let manifest = try await metadata(chunks, writer)
        let time = formatTimeExact(1_700_000_000_000_000_000 + Int64(number) * 3600 * 1_000_000_000)
        let record = SnapshotRecord(
            sequence: UInt64(number), node: "node-\(number % 3)", volume: "/var/lib/qdrant/storage", kind: .tree,
            lineage: "0123456789abcdef", parent: nil, started: time, finished: time, capture: "none", consistency: .fuzzy,
            tags: ["hourly"], set: nil, agent: "scale", complete: true, problems: [],
            statistics: ["bytes_total": 1 << 38, "bytes_read": 1 << 30, "files_new": 3, "files_changed": 10])
        _ = try await writer.commit(record, manifest: manifest)
    }
}
