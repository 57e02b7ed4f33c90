import BackupBase
import CLinux
import Glibc
import ObjectStorage

/// Which block is where: the repository's index objects as sorted runs.
///
/// A cache of what the index objects say, which only repeats the packs'
/// trailers. Lost, it is built again; a run that covers an index object that
/// the repository no longer lists is thrown away before anything is looked up.
public final class BlockIndex {
    private var runs: [IndexRun] = []
    private var directory: String?
    private var damages = 0
    private let ambient: Ambient

    /// Some are merged into one when there are more.
    private static let mostRuns = 8

    /// - Parameter directory: where runs are kept; nil keeps them in memory.
    init(directory: String?, ambient: Ambient) {
        self.directory = directory.flatMap { LocalFile.makeDirectory($0) ? $0 : nil }
        self.ambient = ambient
    }

    var recordCount: Int { runs.reduce(0) { $0 + $1.recordCount } }

    /// All packs that index objects list.
    var packs: Set<ObjectID> { runs.reduce(into: []) { $0.formUnion($1.packs) } }

    /// Where a block is, or nil where no index object knows it. A run that turns
    /// out damaged is thrown away and made again from the repository.
    /// - Parameter isUsable: whether a place in this pack is any good
    func find(
        _ id: BlockID, _ store: any ObjectStore, _ keys: KeyRing, where isUsable: (ObjectID) -> Bool = { _ in true }
    ) async throws -> Location? {
        while true {
            do {
                return try find(id, where: isUsable)
            } catch is IndexRun.Damaged {
                // Made again in the cache, and the second time in memory: a disk
                // may return anything for as long as it likes.
                damages += 1
                if damages > 1 { directory = nil }
                try await load(store, keys)
            }
        }
    }

    func find(_ id: BlockID, where isUsable: (ObjectID) -> Bool = { _ in true }) throws -> Location? {
        for run in runs {
            do {
                if let location = try run.find(id), isUsable(location.pack) { return location }
            } catch {
                runs.removeAll { $0 === run }
                if let path = run.path { unlink(path) }
                throw error
            }
        }
        return nil
    }

    /// Brings the runs in line with the repository's index objects. A prune that
    /// runs meanwhile replaces some: then it looks again.
    func load(_ store: any ObjectStore, _ keys: KeyRing) async throws {
        for _ in 0..<8 {
            if try await loadListed(store, keys) { return }
        }
        // What is missed now is stored once more.
    }

    /// - Returns: false where an object was gone before it was read
    private func loadListed(_ store: any ObjectStore, _ keys: KeyRing) async throws -> Bool {
        var isWhole = true
        let listed = Dictionary(
            try await store.list(IndexObject.prefix).compactMap { info in
                IndexObject.id(name: info.name).map { ($0, info.name) }
            }, uniquingKeysWith: { first, _ in first })
        if runs.isEmpty { openCached(listed: Set(listed.keys)) }
        let covered = runs.reduce(into: Set<ObjectID>()) { $0.formUnion($1.covers) }
        var batch = Batch()
        for (id, name) in listed.sorted(by: { $0.key < $1.key }) where !covered.contains(id) {
            do {
                let bytes = try await store.get(name, .all, limit: IndexObject.sizeLimit).array
                batch.add(try IndexObject(opening: bytes, keys, id: id), id: id)
            } catch let error as StoreError where error.kind == .notFound {
                isWhole = false
            } catch  where error is FormatError || (error as? StoreError)?.kind == .tooLarge {
                throw BackupError(
                    .damaged, "index \(name) is damaged",
                    hint:
                        "Run 'bgbackup check'. Index objects only repeat the packs' trailers: deleted, they are rebuilt by 'bgbackup repair'.",
                    cause: error)
            }
            if batch.records.count >= 500_000 { add(&batch) }
        }
        add(&batch)
        return isWhole
    }

    /// Takes over the packs of an index object that was just written.
    func add(_ object: IndexObject, id: ObjectID) {
        var batch = Batch()
        batch.add(object, id: id)
        add(&batch)
    }

    private struct Batch {
        var records: [IndexRun.Record] = []
        var packs: [ObjectID] = []
        var covers: Set<ObjectID> = []

        mutating func add(_ object: IndexObject, id: ObjectID) {
            covers.insert(id)
            for pack in object.packs {
                let number = UInt32(packs.count)
                packs.append(pack.id)
                for (ordinal, block) in pack.trailer.ids.enumerated() where pack.trailer.holds(ordinal) {
                    records.append(IndexRun.Record(id: block, pack: number, ordinal: UInt32(ordinal)))
                }
            }
        }
    }

    private func add(_ batch: inout Batch) {
        guard !batch.covers.isEmpty else { return }
        batch.records.sort { $0.id < $1.id }
        var unique: [IndexRun.Record] = []
        unique.reserveCapacity(batch.records.count)
        for record in batch.records where unique.last?.id != record.id { unique.append(record) }
        func run(_ path: String?) -> IndexRun? {
            IndexRun(sorted: unique, count: unique.count, packs: batch.packs, covers: batch.covers, path: path)
        }
        // A disk that takes pages and does not give them back gets no second try.
        runs.append(run(newPath()) ?? run(nil)!)
        batch = Batch()
        if runs.count > Self.mostRuns { merge() }
    }

    private func newPath() -> String? { directory.map { "\($0)/\(ambient.random(8).hex).run" } }

    private func openCached(listed: Set<ObjectID>) {
        guard let directory else { return }
        for name in LocalFile.names(in: directory) {
            let path = "\(directory)/\(name)"
            guard name.hasSuffix(".run") else {
                if name.hasSuffix(".run.new") { removeIfOld(path) }
                continue
            }
            // What a prune took away or wrote anew does no harm here: whether a pack is there is looked up elsewhere.
            // A run of which half is gone is made anew.
            if let run = IndexRun(path: path), run.covers.intersection(listed).count * 2 > run.covers.count {
                runs.append(run)
            } else {
                unlink(path)
            }
        }
    }

    /// Leftovers of a killed run; a young one may belong to a run beside us.
    private func removeIfOld(_ path: String) {
        var status = stat()
        if lstat(path, &status) == 0, Int64(status.st_mtim.tv_sec) * 1_000_000_000 < ambient.now() - 3_600_000_000_000 {
            unlink(path)
        }
    }

    /// The smallest runs into one, page by page, so that memory does not grow with them. Larger ones as long as what is
    /// merged is at least half as large: each record is rewritten a few times and not with every eighth run.
    private func merge() {
        runs.sort { $0.recordCount < $1.recordCount }
        var count = 2
        var total = runs[0].recordCount + runs[1].recordCount
        while count < runs.count, runs[count].recordCount <= 2 * total {
            total += runs[count].recordCount
            count += 1
        }
        let chosen = runs[..<count]
        var cursors: [IndexRun.Cursor] = []
        var packs: [ObjectID] = []
        for run in chosen {
            cursors.append(IndexRun.Cursor(run, packBase: UInt32(packs.count)))
            packs += run.packs
        }
        let covers = chosen.reduce(into: Set<ObjectID>()) { $0.formUnion($1.covers) }
        let records = MergedRecords(cursors)
        guard
            let merged = IndexRun(
                sorted: IteratorSequence(records), count: total, packs: packs, covers: covers, path: newPath())
        else { return }
        guard !records.isDamaged else {
            // A run with a bad page goes on answering from its good ones.
            if let path = merged.path { unlink(path) }
            return
        }
        for run in chosen { if let path = run.path { unlink(path) } }
        runs.replaceSubrange(..<count, with: [merged])
    }
}

/// The records of several runs in one ascending order, each id once.
private final class MergedRecords: IteratorProtocol {
    private var cursors: [IndexRun.Cursor]
    private var last: BlockID?
    var isDamaged: Bool { cursors.contains { $0.isDamaged } }

    init(_ cursors: [IndexRun.Cursor]) { self.cursors = cursors }

    func next() -> IndexRun.Record? {
        while true {
            var least: Int?
            for index in cursors.indices {
                guard let record = cursors[index].current else { continue }
                if let found = least, cursors[found].current!.id <= record.id { continue }
                least = index
            }
            guard let least else { return nil }
            let record = cursors[least].current!
            cursors[least].advance()
            if record.id != last {
                last = record.id
                return record
            }
        }
    }
}
