import Dispatch
@testable import QdrantStorage

/// Everything that is read of a volume, a snapshot file or a server, chosen by
/// the first byte: a parser may refuse or find, and must not trap, hang or take
/// more memory than the input justifies.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 1 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: start + 1, count: count - 1))
    switch start[0] % 8 {
    case 0: readLog(bytes)
    case 1: _ = RaftEntry(bytes)
    case 2: readJSON(bytes)
    case 3: countPoints(bytes)
    case 4: placeInArchive(bytes)
    case 5: readAnswer(bytes)
    case 6: readText(String(decoding: bytes, as: UTF8.self))
    default: inspect(bytes)
    }
    return 0
}

/// However its bytes come, a log is the same.
private func readLog(_ bytes: [UInt8]) {
    func read(_ step: Int) -> LogSegment {
        var segment = LogSegment(size: Int64(bytes.count))
        bytes.withUnsafeBytes { all in
            for start in stride(from: 0, to: all.count, by: step) {
                guard segment.feed(UnsafeRawBufferPointer(rebasing: all[start..<min(start + step, all.count)])) else { break }
            }
        }
        segment.close()
        return segment
    }
    let (whole, pieces) = (read(max(bytes.count, 1)), read(7))
    precondition(
        whole.records == pieces.records && whole.end == pieces.end && whole.ending == pieces.ending,
        "a log is another one in pieces")
    precondition(whole.end <= Int64(bytes.count), "a log ends behind its file")
}

private func readJSON(_ bytes: [UInt8]) {
    guard let json = try? JSONValue(parsing: bytes) else { return }
    guard let text = try? json.encoded, let again = try? JSONValue(parsing: text) else {
        preconditionFailure("a document cannot be written and read again")
    }
    precondition(again.isSame(as: json), "a document changes when it is written")
    _ = json.differences(from: again)
}

private func countPoints(_ bytes: [UInt8]) {
    var live: Set<[UInt8]> = []
    var rest = bytes[...]
    var isKnown = true
    while let kind = rest.first {
        guard (1...4).contains(kind) else {
            isKnown = false
            break
        }
        let id = kind % 2 == 0 ? 16 : 8
        let size = 1 + id + (kind <= 2 ? 4 : 0)
        guard rest.count >= size else { break }
        let point = [kind % 2] + rest.dropFirst().prefix(id)
        if kind <= 2 { live.insert(point) } else { live.remove(point) }
        rest = rest.dropFirst(size)
    }
    precondition(PointMappings.count(bytes) == (isKnown ? UInt64(live.count) : nil), "points are counted otherwise")
}

private func placeInArchive(_ bytes: [UInt8]) {
    _ = (FileClass.of(bytes), ScratchPath.matches(bytes), SnapshotArchive.isArchive(bytes), SnapshotArchive.isNote(bytes))
    _ = (SnapshotArchive.folder(bytes), SnapshotArchive.collection(ofFile: String(decoding: bytes, as: UTF8.self)))
    // Between what makes a file of a segment of it.
    let ends = ["", "/files/a", "/snapshot/files/a", "/snapshot/a"]
    for (prefix, end) in ["", "0/segments/", "c.snapshot/1/segments/", "segments/"].flatMap({ start in ends.map { (start, $0) } })
    {
        let path = Array(prefix.utf8) + bytes + Array(end.utf8)
        guard case .keep(let kept) = SnapshotArchive.place(path) else { continue }
        precondition(kept.count <= path.count, "a path becomes longer")
        precondition(
            path.split(separator: 0x2f).map { Array($0) }.suffix(1) == kept.split(separator: 0x2f).map { Array($0) }.suffix(1),
            "a path ends otherwise")
    }
}

/// Answers of a server: sound ones, changed as the input says.
private func readAnswer(_ input: [UInt8]) {
    var rest = input[...]
    guard let which = rest.popFirst() else { return }
    var bytes = Array(answers[Int(which) % answers.count].utf8)
    while let operation = rest.popFirst() { SoundVolume.change(&bytes, operation, &rest) }
    _ = try? UserQuery.parse(bytes)
    _ = try? ServerFingerprint(text: String(decoding: bytes, as: UTF8.self))
    guard let json = try? JSONValue(parsing: bytes) else { return }
    _ = (CollectionInfo(json), ClusterInfo(json), CollectionCluster(json)?.localPoints, FoundPoint(json))
    if let point = StoredPoint(json) {
        precondition(PointID(point.id.json) == point.id, "an id changes")
        for (_, value) in StoredVector.named(point.vector) {
            guard let vector = StoredVector(value) else { continue }
            precondition(vector.distance(to: vector) == 0, "a vector is not where it is")
            _ = vector.canonicalBytes
        }
    }
    if let state = RaftState(json) {
        for isFirst in [true, false] {
            let seeded = state.seeded(uri: "http://green:6335", isFirst: isFirst)
            precondition(seeded.peer == state.peer && seeded.foreignAddresses.isEmpty, "an address of blue is left")
            _ = (try? seeded.document.encoded, seeded.pending, seeded.versions, seeded.isJoint)
        }
    }
}

private let answers =
    [
        #"{"status":"green","optimizer_status":"ok","indexed_vectors_count":5,"config":{},"payload_schema":{},"update_queue":{"length":0}}"#,
        #"{"status":"enabled","peer_id":7,"peers":{"7":{"uri":"http://a:1"}},"raft_info":{"pending_operations":0},"consensus_thread_status":{"consensus_thread_status":"working"},"message_send_failures":{"x":{}}}"#,
        #"{"peer_id":7,"shard_count":2,"local_shards":[{"shard_id":0,"points_count":4,"state":"Active"}],"remote_shards":[{"shard_id":1,"peer_id":8,"state":"Dead"}],"shard_transfers":[]}"#,
        #"{"id":18446744073709551615,"payload":{"a":[1]},"vector":{"d":[0.5,1],"s":{"indices":[3,1],"values":[1,2]},"m":[[1],[2]]},"score":0.25}"#,
        #"{"id":"00000000-0000-4000-8000-000000000001","payload":null,"vector":[1,2.5,-3],"score":1}"#,
        #"{"collection":"c","vector":[0.5],"using":"d","filter":{},"limit":10}"#,
        #"{"format":1,"version":"1.19.0","omitted":[],"collections":[{"name":"c","points":1,"shards":[{"id":0,"points":1}],"shardCount":1,"status":"green","optimizer":"ok","indexedVectors":0,"configuration":"","wasWritten":false,"samples":[{"id":1,"payload":"","vectors":""}],"searches":[{"using":"","query":[1],"ids":[1],"scores":[0.5]}]}]}"#,
    ] + [String(decoding: SoundVolume.files[0].bytes, as: UTF8.self)]

private func readText(_ text: String) {
    if let version = ServerVersion(text) {
        precondition(ServerVersion("\(version)") == version, "a version changes")
        let gate = VersionGate(from: version, to: ServerVersion(1, 19), hasRocksDB: false)
        _ = (gate.isRefused, gate.advice)
    }
    if SeedPlan.isAddress(text) {
        precondition(!text.utf8.contains { $0 <= 0x20 || "\"'`$;&|<>\\(){}%*?!#~".utf8.contains($0) }, "a shell would obey it")
    }
    _ = (try? QdrantAddress(text), SeedPlan.same(text, "http://a:1"))
}

/// A volume that was sound, changed as the input says, and then all that is made of it.
private func inspect(_ input: [UInt8]) {
    var rest = input[...]
    let tree = SoundVolume.tree(SoundVolume.changed(by: &rest))
    let other = SoundVolume.tree(SoundVolume.changed(by: &rest))
    let isUnchanged = input.starts(with: [0xff, 0xff])
    let done = DispatchSemaphore(value: 0)
    Task.detached {
        var volumes: [ClusterVolume] = []
        for (number, tree) in [tree, other].enumerated() {
            var options = VolumeInspector.Options()
            options.isFuzzy = number == 1
            var inspector = VolumeInspector(tree, options: options)
            guard let found = try? await inspector.inspect() else { preconditionFailure("an inspection fails") }
            _ = (found.points, found.segments)
            precondition(found.canStart || !isUnchanged, "the volume to begin with is not sound: \(found.findings)")
            volumes.append(
                ClusterVolume(node: "n\(number)", snapshot: "s\(number)", moment: 0, isAtomic: number == 0, inspection: found))
        }
        for target in [ServerVersion(1, 19), ServerVersion(1, 16)] {
            _ = SeedPlan(volumes, SeedPlan.Request(uris: ["http://a:1", "http://b:1"], target: target))
        }
        done.signal()
    }
    done.wait()
}
