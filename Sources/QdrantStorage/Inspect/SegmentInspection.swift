/// One segment of a shard, as far as its files tell without the engine.
public struct SegmentInspection: Sendable, Codable {
    public let path: String
    public internal(set) var id: String
    /// Of the segment's format: "0.6.0"; nil where the file is missing.
    public internal(set) var formatVersion: String?
    /// Number of the last operation that it has seen.
    public internal(set) var lastOperation: UInt64?
    public internal(set) var isAppendable = false
    /// Points in it: those with an id, less those that are deleted. An estimate:
    /// a point that was overwritten may stand in two segments for a while.
    public internal(set) var points: UInt64?
    public internal(set) var bytes: Int64 = 0
    public internal(set) var files = 0
    public internal(set) var vectors: [String: Vector] = [:]
    public internal(set) var hasRocksDB = false

    public struct Vector: Sendable, Codable {
        public let size: UInt64?
        public let distance: String?
        public let storage: String
        public let index: String
        public let quantization: String?
    }
}

/// Looks at one segment's directory. Which files a segment has follows from its
/// `segment.json` (qdrant lib/segment/src/segment_constructor, lib/blobstore).
struct SegmentInspector {
    let tree: StorageTree
    let path: String
    private var segment: SegmentInspection
    private var findings: [Finding] = []
    private var lacksTracker = false
    /// Whether there are vectors, so that there must be points.
    private var holdsVectors = false

    private let mappingLimit: Int

    /// - Parameter mappingLimit: bytes of a log of id changes that is read; what is larger is estimated
    init(_ path: String, of tree: StorageTree, mappingLimit: Int) {
        self.tree = tree
        self.mappingLimit = min(mappingLimit, PointMappings.sizeLimit)
        self.path = path
        segment = SegmentInspection(path: path, id: path.split(separator: "/").last.map(String.init) ?? path)
    }

    mutating func inspect() async throws -> (SegmentInspection, [Finding]) {
        segment.bytes = tree.bytes(below: path)
        segment.files = count(path)
        segment.hasRocksDB = hasRocksDB(path)
        if segment.hasRocksDB {
            findings.append(
                Finding(
                    .rocksDB, .warning, path, "it has RocksDB files, which Qdrant 1.18 and later cannot read",
                    remedy: "Start it with Qdrant 1.16 or 1.17 first, which migrate it."))
        }
        guard let version = try await tree.read("\(path)/version.info", limit: 64) else {
            findings.append(
                Finding(
                    .segmentWithoutVersion, .forbids, path,
                    "it has no version.info: Qdrant deletes the whole segment at start, with \(segment.files) files",
                    remedy: "Use an earlier snapshot, or one made with an atomic capture."))
            return (segment, findings)
        }
        segment.formatVersion = String(decoding: version, as: UTF8.self)
        guard let document = try await json("segment.json") else {
            findings.append(
                Finding(
                    .segmentUnreadable, .forbids, "\(path)/segment.json",
                    "it is missing or no JSON: the shard does not load", remedy: "Use an earlier snapshot."))
            return (segment, findings)
        }
        segment.lastOperation = document["version"].unsigned
        try await inspectPoints()
        try await inspectVectors(document["config"])
        if lacksTracker, holdsVectors { missing("id_tracker.versions") }
        try await inspectPayload(document["config"])
        return (segment, findings)
    }

    // MARK: - Points

    private mutating func inspectPoints() async throws {
        if let file = tree.file("\(path)/mutable_id_tracker.versions") {
            segment.isAppendable = true
            expect("mutable_id_tracker.mappings")
            let changes = try await tree.read("\(path)/mutable_id_tracker.mappings", limit: mappingLimit)
            segment.points = changes.flatMap { PointMappings.count($0) } ?? UInt64(file.size / 8)
        } else if let file = tree.file("\(path)/id_tracker.versions") {
            for name in ["id_tracker.deleted"] { expect(name) }
            if tree.file("\(path)/id_tracker.mappings") == nil, tree.file("\(path)/id_tracker.i2e") == nil {
                missing("id_tracker.mappings")
            }
            let deleted = try await tree.read("\(path)/id_tracker.deleted", limit: 1 << 30)?.reduce(0) { $0 + $1.nonzeroBitCount }
            segment.points = UInt64(max(file.size / 8 - Int64(deleted ?? 0), 0))
        } else if !segment.hasRocksDB {
            // An appendable segment gets its tracker with its first point.
            segment.isAppendable = true
            segment.points = 0
            lacksTracker = true
        }
    }

    /// Ids that were given in the segment, deleted ones too: what a vector storage has room for.
    private var capacity: Int64? {
        (tree.file("\(path)/mutable_id_tracker.versions") ?? tree.file("\(path)/id_tracker.versions")).map { $0.size / 8 }
    }

    // MARK: - Vectors

    private mutating func inspectVectors(_ config: JSONValue) async throws {
        for (name, vector) in (config["vector_data"].object ?? [:]).sorted(by: { $0.key < $1.key }) {
            let storage = vector["storage_type"].string ?? "?"
            let index = vector["index"]["type"].string ?? "?"
            segment.vectors[name] = SegmentInspection.Vector(
                size: vector["size"].unsigned, distance: vector["distance"].string, storage: storage, index: index,
                quantization: vector["quantization_config"].object?.keys.sorted().first)
            let folder = name.isEmpty ? "vector_storage" : "vector_storage-\(name)"
            switch storage {
            case "Mmap", "InRamMmap": checkMatrix(folder, vector)
            case "ChunkedMmap", "InRamChunkedMmap": try await checkChunks(folder, vector)
            default: break
            }
            if index == "hnsw" { checkGraph(name.isEmpty ? "vector_index" : "vector_index-\(name)") }
        }
        for (name, vector) in config["sparse_vector_data"].object ?? [:] {
            segment.vectors[name] = SegmentInspection.Vector(
                size: nil, distance: nil, storage: vector["storage_type"].string ?? "?",
                index: vector["index"]["index_type"].string ?? "?", quantization: nil)
        }
    }

    /// `matrix.dat`: four bytes, then the vectors one behind the other.
    private mutating func checkMatrix(_ folder: String, _ vector: JSONValue) {
        holdsVectors = true
        guard vector["multivector_config"].isNull else { return }
        guard let file = tree.file("\(path)/\(folder)/matrix.dat") else { return missing("\(folder)/matrix.dat") }
        expect("\(folder)/deleted.dat")
        let bytes = ["float32": 4, "float16": 2, "uint8": 1][vector["datatype"].string?.lowercased() ?? "float32"]
        guard let size = vector["size"].unsigned, size < 1 << 20, let bytes, let capacity else { return }
        let wanted = 4 + capacity * Int64(size) * Int64(bytes)
        if file.size < wanted { torn("\(folder)/matrix.dat", file.size, wanted) }
    }

    /// `vectors/chunk_N.mmap`, each as large as its `config.json` says.
    private mutating func checkChunks(_ folder: String, _ vector: JSONValue) async throws {
        let vectors = "\(folder)/vectors"
        expect("\(vectors)/status.dat")
        guard let config = try await json("\(vectors)/config.json"), let chunk = config["chunk_size_bytes"].unsigned else {
            return missing("\(vectors)/config.json")
        }
        for file in tree.list("\(path)/\(vectors)") where file.name.hasPrefix("chunk_") && file.size < Int64(clamping: chunk) {
            torn("\(vectors)/\(file.name)", file.size, Int64(clamping: chunk))
        }
        guard vector["multivector_config"].isNull, let perChunk = config["chunk_size_vectors"].unsigned, perChunk > 0,
            let status = try await tree.read("\(path)/\(vectors)/status.dat", limit: 64), status.count >= 8
        else { return }
        let count = status.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        if count > 0 { holdsVectors = true }
        let wanted = count / perChunk + (count % perChunk == 0 ? 0 : 1)
        // A count beyond all files is itself torn; no more than one is named.
        for number in 0..<min(wanted, 100_000) where tree.file("\(path)/\(vectors)/chunk_\(number).mmap") == nil {
            return missing("\(vectors)/chunk_\(number).mmap")
        }
    }

    private mutating func checkGraph(_ folder: String) {
        expect("\(folder)/graph.bin")
        expect("\(folder)/hnsw_config.json")
        let links = tree.list("\(path)/\(folder)").contains { $0.name.hasPrefix("links") && $0.name.hasSuffix(".bin") }
        if !links { missing("\(folder)/links.bin") }
    }

    // MARK: - Payload

    private mutating func inspectPayload(_ config: JSONValue) async throws {
        guard tree.hasDirectory("\(path)/payload_storage") else {
            if !segment.hasRocksDB, !config["payload_storage_type"].isNull { missing("payload_storage") }
            return
        }
        guard let options = try await json("payload_storage/config.json") else { return missing("payload_storage/config.json") }
        for name in ["tracker.dat", "bitmask.dat", "gaps.dat"] { expect("payload_storage/\(name)") }
        guard let page = options["page_size_bytes"].unsigned.map({ Int64(clamping: $0) }) else { return }
        let pages = tree.list("\(path)/payload_storage").filter { $0.name.hasPrefix("page_") }
        for file in pages where file.size < page { torn("payload_storage/\(file.name)", file.size, page) }
        let numbers = Set(pages.compactMap { Int($0.name.dropFirst(5).dropLast(4)) })
        for number in 0..<max(numbers.count, 1) where !numbers.contains(number) {
            return missing("payload_storage/page_\(number).dat")
        }
    }

    // MARK: - Helpers

    private func json(_ name: String) async throws -> JSONValue? {
        try await tree.read("\(path)/\(name)").flatMap { try? JSONValue(parsing: $0) }
    }

    private mutating func expect(_ name: String) { if tree.file("\(path)/\(name)") == nil { missing(name) } }

    private mutating func missing(_ name: String) {
        findings.append(
            Finding(
                .segmentIncomplete, .forbids, "\(path)/\(name)", "it is missing: the segment does not load, or without it",
                remedy: "Use an earlier snapshot, or one made with an atomic capture."))
    }

    private mutating func torn(_ name: String, _ size: Int64, _ wanted: Int64) {
        findings.append(
            Finding(
                .segmentTorn, .forbids, "\(path)/\(name)", "it has \(size) bytes where \(wanted) belong",
                remedy: "Use an earlier snapshot, or one made with an atomic capture."))
    }

    private func count(_ folder: String) -> Int {
        tree.list(folder).reduce(0) { $0 + ($1.isDirectory ? count("\(folder)/\($1.name)") : 1) }
    }

    private func hasRocksDB(_ folder: String) -> Bool {
        tree.list(folder).contains {
            $0.isDirectory
                ? hasRocksDB("\(folder)/\($0.name)")
                : $0.name == "CURRENT" || $0.name.hasPrefix("MANIFEST-") || $0.name.hasSuffix(".sst")
        }
    }
}
