import BackupBase

/// ListObjectsV2 over all pages. A store that repeats, forgets the order or
/// turns in circles is found out or made good: a key counts once.
struct S3Listing {
    private let store: S3Store
    /// Pages of a thousand names: ten million objects, 600 TiB in packs.
    private static let pageLimit = 10_000

    init(_ store: S3Store) { self.store = store }

    func objects(_ prefix: String) async throws -> [ObjectInfo] {
        var found: [String: ObjectInfo] = [:]
        var token: String?
        var seen: Set<String> = []
        for _ in 0..<Self.pageLimit {
            let page = try await page(prefix, token)
            for element in page.all("Contents") {
                let object = try object(element, page)
                guard object.name.hasPrefix(prefix) else { throw wrong(prefix, "it lists what was not asked for") }
                found[object.name] = object
            }
            guard page["IsTruncated"] == "true" else { return found.values.sorted { $0.name < $1.name } }
            guard let next = page["NextContinuationToken"], !next.isEmpty, seen.insert(next).inserted else {
                throw wrong(prefix, "it does not say where the list goes on")
            }
            token = next
        }
        throw wrong(prefix, "the list has no end")
    }

    /// ListObjectVersions: names whose newest version is a delete marker, with an object behind it.
    func hidden(_ prefix: String) async throws -> [String] {
        var (marked, kept): (Set<String>, Set<String>) = ([], [])
        var next: [(String, String)] = []
        for _ in 0..<Self.pageLimit {
            var call = S3Call("GET", nil, operation: "list versions", name: store.full(prefix))
            call.query = [("versions", ""), ("prefix", store.key(prefix)), ("encoding-type", "url")] + next
            call.limit = 16 << 20
            let response = try await store.perform(call)
            guard let page = XMLElement.parse(response.body.bytes), page.name == "ListVersionsResult" else {
                throw wrong(prefix, "its answer is no list of versions")
            }
            func name(_ element: XMLElement) throws -> String {
                let raw = element["Key"]
                guard let key = page["EncodingType"] == "url" ? raw.flatMap(Self.decoded) : raw, key.hasPrefix(store.key(prefix))
                else { throw wrong(prefix, "a version of the list has no name") }
                return String(key.dropFirst(store.key("").count))
            }
            for element in page.all("DeleteMarker") where element["IsLatest"] == "true" { marked.insert(try name(element)) }
            for element in page.all("Version") { kept.insert(try name(element)) }
            guard page["IsTruncated"] == "true" else { return marked.intersection(kept).sorted() }
            guard let key = page["NextKeyMarker"], let version = page["NextVersionIdMarker"],
                let plain = page["EncodingType"] == "url" ? Self.decoded(key) : key
            else { throw wrong(prefix, "it does not say where the list of versions goes on") }
            next = [("key-marker", plain), ("version-id-marker", version)]
        }
        throw wrong(prefix, "the list of versions has no end")
    }

    private func page(_ prefix: String, _ token: String?) async throws -> XMLElement {
        var call = S3Call("GET", nil, operation: "list", name: store.full(prefix))
        call.query = [("list-type", "2"), ("prefix", store.key(prefix)), ("encoding-type", "url")]
        if let token { call.query.append(("continuation-token", token)) }
        call.limit = 16 << 20
        let response = try await store.perform(call)
        guard let page = XMLElement.parse(response.body.bytes), page.name == "ListBucketResult" else {
            throw wrong(prefix, "its answer is no list")
        }
        return page
    }

    private func object(_ element: XMLElement, _ page: XMLElement) throws -> ObjectInfo {
        let encoded = page["EncodingType"] == "url"
        guard let raw = element["Key"], let key = encoded ? Self.decoded(raw) : raw,
            let size = element["Size"].flatMap({ Int($0) }), size >= 0, key.hasPrefix(store.key(""))
        else { throw wrong("", "an entry of the list has no name or size") }
        // Not 1970 instead: what is old may be taken away.
        guard let modified = element["LastModified"].flatMap({ parseListDate($0) }) else {
            throw wrong(String(key.dropFirst(store.key("").count)), "an entry of the list has no date")
        }
        return ObjectInfo(name: String(key.dropFirst(store.key("").count)), size: size, modified: modified)
    }

    /// Form encoding: "+" is a space.
    private static func decoded(_ text: String) -> String? {
        percentDecoded(text.replacing("+", with: "%20"))
    }

    private func wrong(_ prefix: String, _ detail: String) -> StoreError {
        StoreError(
            .failed, "list", store.full(prefix), detail, hint: "Run 'bgbackup repo probe': this store does not keep to S3.")
    }
}
