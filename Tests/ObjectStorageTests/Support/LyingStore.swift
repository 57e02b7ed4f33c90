import BackupBase

@testable import ObjectStorage

/// Objects in memory: an honest store, until it is told one lie.
final class LyingStore: ObjectStore {
    enum Lie: String, Sendable, CaseIterable {
        // Conditions of a new object.
        case overwritesInSilence, refusesAndOverwrites, severalWinners
        // Conditions of a changed one.
        case ignoresVersions, refusesRightfulReplacement, replacementFails, createsOverOthers, refusesAndReplaces,
            oneVersionForAll, readsOldState, tellsAnotherVersion
        // Parts.
        case wholeForPart, offByOne, firstForLast, anotherSize, refusesBeyondEnd, refusesLongSuffix, emptyParts
        // Lists.
        case listsLate, listsAllButLast, listsRemoved, listsOtherSizes, listsTwice, listsBackwards, listsNeighbours,
            listsNothing
        // Bytes.
        case losesEmpty, cutsLarge, flipsLarge, tellsWrongSize, storesNothing
        // Absence.
        case tellsOfMissing, readsMissing, keepsDeleted, keepsDeletedReadable, keepsBatches
        // Time.
        case clockAhead, clockBehind
    }

    private struct Object {
        var bytes: [UInt8]
        var version: Int
        var modified: Int64
    }
    private struct State {
        var objects: [String: Object] = [:]
        var old: [String: Object] = [:]
        var removed: [String: Object] = [:]
        var counter = 0
    }

    let location = "memory"
    let parallelPuts = 4
    private let lie: Lie?
    private let state = Locked(State())

    init(_ lie: Lie? = nil) { self.lie = lie }

    var names: [String] { state.withLock { $0.objects.keys.sorted() } }

    private var now: Int64 {
        let offset: Int64 = lie == .clockAhead ? 600_000_000_000 : lie == .clockBehind ? -600_000_000_000 : 0
        return Ambient.system.now() + offset
    }

    func put(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws {
        try state.withLock { state in
            var refuses = ifAbsent && state.objects[name] != nil
            // A second writer at the same moment is let through; those who come one by one are refused.
            if lie == .severalWinners, name.hasSuffix("/race"), state.old[name] == nil { refuses = false }
            if refuses, lie != .overwritesInSilence, lie != .refusesAndOverwrites { throw StoreError(.exists, "write", name) }
            write(name, content.array, &state)
            if refuses, lie == .refusesAndOverwrites { throw StoreError(.exists, "write", name) }
        }
    }

    private func write(_ name: String, _ bytes: [UInt8], _ state: inout State) {
        var bytes = bytes
        if lie == .storesNothing || lie == .losesEmpty && bytes.isEmpty { return }
        if lie == .cutsLarge, bytes.count > 200_000 { bytes.removeLast() }
        if lie == .flipsLarge, bytes.count > 200_000 { bytes[bytes.count / 2] ^= 1 }
        state.counter += 1
        state.old[name] = state.objects[name]
        state.objects[name] = Object(bytes: bytes, version: lie == .oneVersionForAll ? 1 : state.counter, modified: now)
    }

    func get(_ name: String, _ range: ByteRange, limit: Int) async throws -> ObjectBytes {
        guard let bytes = state.withLock({ ($0.objects[name] ?? (lie == .keepsDeletedReadable ? $0.removed[name] : nil))?.bytes })
        else {
            if lie == .readsMissing { return ObjectBytes(AlignedBuffer(capacity: 0), count: 0, objectSize: 0) }
            throw StoreError(.notFound, "read", name)
        }
        var part: [UInt8]
        switch range {
        case .all: part = bytes
        case .from(let offset, let count):
            if lie == .refusesBeyondEnd, offset + count > bytes.count {
                throw StoreError(.failed, "read", name, "the range is beyond its end")
            }
            let start = lie == .offByOne && offset > 0 ? offset - 1 : offset
            part = Array(bytes.dropFirst(start).prefix(count))
        case .last(let count):
            if lie == .refusesLongSuffix, count > bytes.count { throw StoreError(.failed, "read", name, "the range is too long") }
            part = lie == .firstForLast ? Array(bytes.prefix(count)) : bytes.suffix(count)
        }
        if range != .all {
            if lie == .wholeForPart { part = bytes }
            if lie == .emptyParts { part = [] }
        }
        guard part.count <= limit else { throw StoreError(.tooLarge, "read", name) }
        let size = bytes.count + (lie == .anotherSize && range != .all ? 1 : 0)
        return ObjectBytes(AlignedBuffer(copying: part), count: part.count, objectSize: size)
    }

    func info(_ name: String) async throws -> ObjectInfo? {
        state.withLock { state in
            guard let object = state.objects[name] else {
                return lie == .tellsOfMissing ? ObjectInfo(name: name, size: 0, modified: now) : nil
            }
            let size = object.bytes.count + (lie == .tellsWrongSize ? 1 : 0)
            return ObjectInfo(name: name, size: size, modified: object.modified)
        }
    }

    func list(_ prefix: String) async throws -> [ObjectInfo] {
        state.withLock { state in
            var visible = state.objects
            if lie == .listsRemoved { visible.merge(state.removed) { current, _ in current } }
            let asked = lie == .listsNeighbours ? String(prefix.dropLast(5)) : prefix
            var list = visible.filter { $0.key.hasPrefix(asked) }.map { name, object in
                ObjectInfo(name: name, size: object.bytes.count + (lie == .listsOtherSizes ? 1 : 0), modified: object.modified)
            }.sorted { $0.name < $1.name }
            switch lie {
            case .listsLate: list.removeAll { now - $0.modified < 60_000_000_000 }
            case .listsAllButLast: list = list.dropLast()
            case .listsTwice: list = list.flatMap { [$0, $0] }
            case .listsBackwards: list.reverse()
            case .listsNothing: list = []
            default: break
            }
            return list
        }
    }

    func delete(_ name: String) async throws {
        if lie == .keepsDeleted { return }
        state.withLock { state in
            if let object = state.objects.removeValue(forKey: name) { state.removed[name] = object }
        }
    }

    func delete(all names: [String]) async throws {
        if lie == .keepsBatches { return }
        for name in names { try await delete(name) }
    }

    func fetch(_ name: String, limit: Int) async throws -> VersionedObject? {
        state.withLock { state in
            guard var object = state.objects[name] else { return nil }
            let version = object.version
            if lie == .readsOldState, let old = state.old[name] { object = old }
            return VersionedObject(
                bytes: object.bytes, version: "\(lie == .tellsAnotherVersion ? version + 1 : version)", modified: object.modified,
                now: now)
        }
    }

    @discardableResult
    func replace(_ name: String, _ content: [UInt8], expecting version: String?) async throws -> String {
        try state.withLock { state in
            let current = state.objects[name].map { "\($0.version)" }
            var refuses = current != version
            switch lie {
            case .ignoresVersions where version != nil: refuses = false
            case .createsOverOthers where version == nil: refuses = false
            case .refusesRightfulReplacement where version != nil: refuses = true
            case .replacementFails where version != nil: throw StoreError(.failed, "replace", name, "the store answers 400")
            default: break
            }
            if refuses, lie != .refusesAndReplaces { throw StoreError(.exists, "replace", name) }
            write(name, content, &state)
            if refuses { throw StoreError(.exists, "replace", name) }
            return "\(state.objects[name]?.version ?? 0)"
        }
    }
}

extension AlignedBuffer {
    fileprivate var array: [UInt8] { Array(bytes) }
}
