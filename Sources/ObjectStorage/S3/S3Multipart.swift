import BackupBase
import Crypto

/// Uploads in parts, for objects larger than one PUT takes.
struct S3Multipart {
    private let store: S3Store
    /// What S3 takes at most (Amazon S3 user guide, "Multipart upload limits").
    private static let partLimit = 10_000

    init(_ store: S3Store) { self.store = store }

    func put(_ name: String, _ content: AlignedBuffer, digest: [UInt8], ifAbsent: Bool) async throws {
        let size = max(store.place.partSize, (content.count + Self.partLimit - 1) / Self.partLimit)
        let upload = try await create(name, digest)
        do {
            var parts: [(number: Int, tag: String, checksum: String?)] = []
            for start in stride(from: 0, to: content.count, by: size) {
                let range = start..<min(start + size, content.count)
                parts.append(try await send(range, of: content, name, upload, number: parts.count + 1))
            }
            try await complete(name, upload, parts, content.count, digest, ifAbsent)
        } catch {
            // Also when the run was cancelled: parts that nobody completes cost money.
            await Task { try? await abort(store.key(name), upload) }.value
            throw error
        }
    }

    private func create(_ name: String, _ digest: [UInt8]) async throws -> String {
        var call = store.call("POST", name, "write")
        call.query = [("uploads", "")]
        call.headers = store.extras.writing(name, digest: digest, now: store.ambient.now() + store.client.skew)
        if store.extras.checksums { call.headers.append(("x-amz-checksum-algorithm", "SHA256")) }
        let response = try await store.perform(call)
        guard let id = XMLElement.parse(response.body.bytes)?["UploadId"], !id.isEmpty else {
            throw StoreError(.failed, "write", store.full(name), "the store names no upload")
        }
        return id
    }

    private func send(
        _ range: Range<Int>, of content: AlignedBuffer, _ name: String, _ upload: String, number: Int
    ) async throws -> (number: Int, tag: String, checksum: String?) {
        let digest = Array(SHA256.hash(data: dataView(content, range)))
        var call = store.call("PUT", name, "write")
        call.query = [("partNumber", "\(number)"), ("uploadId", upload)]
        call.body = .buffer(content, offset: range.lowerBound, count: range.count)
        call.payloadHash = digest.hex
        call.headers = store.extras.reading
        let checksum = store.extras.checksums ? base64(digest) : nil
        if let checksum { call.headers.append(("x-amz-checksum-sha256", checksum)) }
        let response = try await store.perform(call)
        guard let tag = response.header("etag") else {
            throw StoreError(.failed, "write", store.full(name), "the store names no version of a part")
        }
        return (number, tag, checksum)
    }

    private func complete(
        _ name: String, _ upload: String, _ parts: [(number: Int, tag: String, checksum: String?)], _ size: Int,
        _ digest: [UInt8], _ ifAbsent: Bool
    ) async throws {
        var call = store.call("POST", name, "write")
        call.query = [("uploadId", upload)]
        call.mayFailInside = true
        let list = parts.map { part in
            let checksum = part.checksum.map { "<ChecksumSHA256>\($0)</ChecksumSHA256>" } ?? ""
            return "<Part><PartNumber>\(part.number)</PartNumber><ETag>\(part.tag)</ETag>\(checksum)</Part>"
        }
        let body = "<CompleteMultipartUpload>\(list.joined())</CompleteMultipartUpload>"
        call.body = .bytes(Array(body.utf8))
        call.payloadHash = RequestSigner.hash(body.utf8)
        call.headers = store.extras.reading
        do {
            try await store.write(call, name, size, digest, ifAbsent: ifAbsent)
        } catch let error as StoreError where error.kind == .notFound {
            // The upload is gone: completed by a try whose answer was lost, or aborted.
            guard let found = try await store.head(name), found.info.size == size, found.digest == digest.hex else {
                throw error
            }
        }
    }

    private func abort(_ key: String, _ upload: String) async throws {
        var call = S3Call("DELETE", key, operation: "abort the upload of", name: key)
        call.query = [("uploadId", upload)]
        _ = try await store.perform(call)
    }

    /// Aborts uploads below the repository's prefix that began before this time.
    func abortLeftovers(_ before: Int64) async throws {
        var call = S3Call("GET", nil, operation: "list uploads of", name: store.location)
        call.query = [("uploads", ""), ("prefix", store.key(""))]
        call.limit = 4 << 20
        let response = try await store.perform(call)
        guard let list = XMLElement.parse(response.body.bytes) else { return }
        // A page is enough: the next run takes the next thousand.
        for upload in list.all("Upload") {
            guard let key = upload["Key"], key.hasPrefix(store.key("")), let id = upload["UploadId"],
                let begun = upload["Initiated"].flatMap({ parseListDate($0) }), begun < before
            else { continue }
            try await abort(key, id)
        }
    }
}
