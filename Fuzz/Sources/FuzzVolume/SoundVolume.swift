@testable import QdrantStorage

/// A small volume that an inspection finds nothing wrong with: the fuzzer
/// begins with it and changes it, since it would never guess one.
enum SoundVolume {
    static let shard = "collections/c/0"

    static let files: [(path: String, bytes: [UInt8])] =
        [
            ("raft_state.json", raftState),
            ("collections_meta_wal/open-1", log([entry(1, "http://blue-1:6335/"), entry(2, nil)])),
            ("aliases/data.json", Array(#"{"a":"c"}"#.utf8)),
            ("collections/c/config.json", Array(config.utf8)),
            ("collections/c/version.info", Array("0.4.2".utf8)),
            ("collections/c/shard_key_mapping.json", Array("{}".utf8)),
            ("collections/c/shard_transfers", Array("[]".utf8)),
            ("collections/c/resharding_state.json", Array("null".utf8)),
            ("\(shard)/shard_config.json", Array(#"{"type":"ReplicaSet"}"#.utf8)),
            ("\(shard)/replica_state.json", Array(#"{"is_local":true,"this_peer_id":7,"peers":{"7":"Active","8":"Dead"}}"#.utf8)),
            ("\(shard)/newest_clocks.json", Array(#"{"clocks":[{"peer_id":7,"clock_id":0,"current_tick":9}]}"#.utf8)),
            ("\(shard)/wal/first-index", Array(#"{"ack_index":0}"#.utf8)),
            ("\(shard)/wal/closed-0", log([[1, 2, 3], [UInt8](repeating: 9, count: 40)])),
            ("\(shard)/wal/open-2", log([[4]])),
            ("\(grown)/version.info", Array("0.6.0".utf8)),
            ("\(grown)/segment.json", Array(segment("ChunkedMmap", "plain").utf8)),
            ("\(grown)/mutable_id_tracker.versions", [UInt8](repeating: 0, count: 16)),
            ("\(grown)/mutable_id_tracker.mappings", mappings),
            ("\(grown)/vector_storage/vectors/config.json", Array(#"{"chunk_size_bytes":32,"chunk_size_vectors":4}"#.utf8)),
            ("\(grown)/vector_storage/vectors/status.dat", [2, 0, 0, 0, 0, 0, 0, 0]),
            ("\(grown)/vector_storage/vectors/chunk_0.mmap", [UInt8](repeating: 0, count: 32)),
            ("\(built)/version.info", Array("0.6.0".utf8)),
            ("\(built)/segment.json", Array(segment("Mmap", "hnsw").utf8)),
            ("\(built)/id_tracker.versions", [UInt8](repeating: 0, count: 16)),
            ("\(built)/id_tracker.mappings", [0]),
            ("\(built)/id_tracker.deleted", [1]),
            ("\(built)/vector_storage/matrix.dat", [UInt8](repeating: 0, count: 20)),
            ("\(built)/vector_storage/deleted.dat", [0]),
            ("\(built)/vector_index/graph.bin", [0]),
            ("\(built)/vector_index/links.bin", [0]),
            ("\(built)/vector_index/hnsw_config.json", Array("{}".utf8)),
        ] + payload(grown) + payload(built)

    private static let grown = "\(shard)/segments/00000000-0000-4000-8000-000000000001"
    private static let built = "\(shard)/segments/00000000-0000-4000-8000-000000000002"

    private static func payload(_ segment: String) -> [(path: String, bytes: [UInt8])] {
        [
            ("\(segment)/payload_storage/config.json", Array(#"{"page_size_bytes":8}"#.utf8)),
            ("\(segment)/payload_storage/page_0.dat", [UInt8](repeating: 0, count: 8)),
        ] + ["tracker.dat", "bitmask.dat", "gaps.dat"].map { ("\(segment)/payload_storage/\($0)", [0]) }
    }

    private static let raftState = Array(
        """
        {"this_peer_id":7,"state":{"hard_state":{"term":1,"vote":7,"commit":2},"conf_state":{"voters":[7,8],"learners":[],\
        "voters_outgoing":[],"learners_next":[],"auto_leave":false}},"latest_snapshot_meta":{"term":0,"index":0},\
        "apply_progress_queue":[3,2],"first_voter":7,"peer_address_by_id":{"7":"http://blue-0:6335/","8":"http://blue-1:6335/"},\
        "peer_metadata_by_id":{"7":{"version":"1.19.0"},"8":{"version":"1.19.0"}}}
        """.utf8)

    private static let config =
        #"{"params":{"vectors":{"size":2,"distance":"Dot"},"shard_number":1,"sparse_vectors":{"s":{}}},"uuid":"u"}"#

    private static func segment(_ storage: String, _ index: String) -> String {
        """
        {"version":2,"config":{"vector_data":{"":{"size":2,"distance":"Dot","storage_type":"\(storage)",\
        "index":{"type":"\(index)"},"quantization_config":null,"multivector_config":null,"datatype":"float32"}},\
        "payload_storage_type":{"type":"mmap"}}}
        """
    }

    private static let mappings: [UInt8] = [1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]

    /// Protobuf of a raft entry: term 1, index, and in its context an address.
    private static func entry(_ index: UInt8, _ address: String?) -> [UInt8] {
        [0x10, 1, 0x18, index] + (address.map { [0x32, UInt8($0.utf8.count)] + Array($0.utf8) } ?? [])
    }

    /// A segment of a write-ahead log whose seed is 0.
    static func log(_ records: [[UInt8]]) -> [UInt8] {
        var bytes = Array("wal\0".utf8) + [0, 0, 0, 0]
        var previous: UInt32 = 0
        for data in records {
            var record = withUnsafeBytes(of: UInt64(data.count).littleEndian) { Array($0) } + data
            record += [UInt8](repeating: 0, count: (4 - data.count) & 7)
            var sum = CRC32C(continuing: ~LogSegment.reversed(previous))
            record.withUnsafeBytes { sum.update($0) }
            previous = sum.checksum
            bytes += record + withUnsafeBytes(of: previous.littleEndian) { Array($0) }
        }
        return bytes + [UInt8](repeating: 0, count: 64)
    }

    /// Files of an input that says what to change, and the rest of the input.
    static func changed(by input: inout ArraySlice<UInt8>) -> [String: [UInt8]] {
        var changed = Dictionary(uniqueKeysWithValues: files.map { ($0.path, $0.bytes) })
        while let operation = input.popFirst(), operation != 0xff, let which = input.popFirst() {
            let path = files[Int(which) % files.count].path
            var bytes = changed[path] ?? []
            let kept = bytes
            change(&bytes, operation, &input)
            switch operation % 8 {
            case 6: changed[path] = nil
            case 7:
                // Another name in the same directory.
                changed[path] = nil
                let folder = path[...(path.lastIndex(of: "/") ?? path.startIndex)]
                let name = names[Int(bytes.first ?? 0) % names.count] + String(decoding: bytes.dropFirst(), as: UTF8.self)
                changed["\(folder)\(name.replacing("/", with: "_"))"] = kept
            default: changed[path] = bytes
            }
        }
        return changed
    }

    private static let names = [
        "", "closed-18446744073709551615", "closed-", "open-", "open-18446744073709551615", "closed-9223372036854775808",
        "chunk_9.mmap", "page_18446744073709551615.dat", "CURRENT", "18446744073709551615", "shard_0.initializing",
    ]

    private static let numbers = [
        "0", "1", "7", "18446744073709551615", "9223372036854775808", "-1", "1e300", "1152921504606846976", "4294967296", "null",
    ]

    static func change(_ bytes: inout [UInt8], _ operation: UInt8, _ input: inout ArraySlice<UInt8>) {
        let place = Int(input.popFirst() ?? 0) | Int(input.popFirst() ?? 0) << 8
        let count = min(Int(input.popFirst() ?? 0), input.count)
        let start = bytes.isEmpty ? 0 : place % bytes.count
        switch operation % 8 {
        case 0: bytes = Array(input.prefix(count))
        case 1: bytes.replaceSubrange(start..<min(start + count, bytes.count), with: input.prefix(count))
        case 2: bytes.insert(contentsOf: input.prefix(count), at: start)
        case 3: bytes.removeSubrange(start..<min(start + count, bytes.count))
        case 4:
            // The next number of the text becomes another one.
            let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
            guard let first = bytes[start...].firstIndex(where: digits.contains) else { break }
            let end = bytes[first...].firstIndex { !digits.contains($0) } ?? bytes.count
            bytes.replaceSubrange(first..<end, with: Array(numbers[count % numbers.count].utf8))
            return
        case 5:
            // A log whose records are the input's, with good checksums.
            bytes = log(input.prefix(count).split(separator: 0).map { Array($0) })
        default: bytes = Array(input.prefix(min(count, 60)))  // a name
        }
        input = input.dropFirst(count)
    }

    static func tree(_ files: [String: [UInt8]]) -> StorageTree {
        var tree = StorageTree { path, body in
            guard let bytes = files[path] else { return }
            // In two pieces: what comes from a disk comes in pieces too.
            let middle = bytes.count / 2
            try bytes.withUnsafeBytes { all in
                guard try body(UnsafeRawBufferPointer(rebasing: all[..<middle])) else { return }
                _ = try body(UnsafeRawBufferPointer(rebasing: all[middle...]))
            }
        }
        var made: Set<String> = []
        for path in files.keys.sorted() {
            var folder = ""
            for part in path.split(separator: "/").dropLast() {
                folder += folder.isEmpty ? "\(part)" : "/\(part)"
                if made.insert(folder).inserted { tree.add(folder, isDirectory: true) }
            }
            tree.add(path, isDirectory: false, size: Int64(files[path]!.count))
        }
        return tree
    }
}
