import BackupBase
import Crypto

/// Writing objects, so that no answer has to be believed.
extension S3Store {
    public func put(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws {
        try await send(name, content, ifAbsent: ifAbsent)
        if name.hasPrefix("v1/") { try await confirm(name, size: content.count) }
    }

    public func putUnconfirmed(_ name: String, _ content: AlignedBuffer) async throws {
        try await send(name, content, ifAbsent: true)
    }

    private func send(_ name: String, _ content: AlignedBuffer, ifAbsent: Bool) async throws {
        let digest = Array(SHA256.hash(data: dataView(content, 0..<content.count)))
        if content.count > place.multipartAbove {
            try await S3Multipart(self).put(name, content, digest: digest, ifAbsent: ifAbsent)
        } else {
            var call = call("PUT", name, "write")
            call.body = .buffer(content, offset: 0, count: content.count)
            call.payloadHash = digest.hex
            call.headers = extras.writing(name, digest: digest, now: ambient.now() + client.skew)
            if extras.checksums { call.headers.append(("x-amz-checksum-sha256", base64(digest))) }
            try await write(call, name, content.count, digest, ifAbsent: ifAbsent)
        }
        if name.hasPrefix("v1/") { unconfirmed.withLock { $0[name] = digest } }
    }

    /// Performs the call that makes an object, on condition that there is none.
    /// A lost answer is settled by looking: what is there with our digest is ours.
    func write(_ call: S3Call, _ name: String, _ size: Int, _ digest: [UInt8], ifAbsent: Bool) async throws {
        guard ifAbsent else {
            _ = try await perform(call)
            return
        }
        var call = call
        call.headers.append(("if-none-match", "*"))
        let wasUnknown = Locked(false)
        do {
            _ = try await perform(call) {
                wasUnknown.withLock { $0 = true }
                return try await self.isOurs(name, size, digest) ? Self.settled : nil
            }
        } catch let error as StoreError where error.kind == .exists {
            guard wasUnknown.withLock({ $0 }), try await isOurs(name, size, digest) else { throw error }
        } catch let error as StoreError where error.kind == .unsupported {
            // The store knows no such condition: look first. `StoreProbe` records that it is so.
            guard try await info(name) == nil else { throw StoreError(.exists, "write", full(name)) }
            call.headers.removeLast()
            _ = try await perform(call)
        }
    }

    private static var settled: HTTPResponse { HTTPResponse(status: 200, headers: [], body: AlignedBuffer(capacity: 0)) }

    /// Whether the object under this name is the one that was sent. False where
    /// there is none. Throws `.exists` where there is another.
    private func isOurs(_ name: String, _ size: Int, _ digest: [UInt8]) async throws -> Bool {
        guard let found = try await head(name) else { return false }
        let same =
            if found.info.size != size { false } else if let known = found.digest { known == digest.hex } else {
                try await self.digest(of: name, size) == digest
            }
        guard same else { throw StoreError(.exists, "write", full(name)) }
        return true
    }

    /// Looks whether what the store says it stored is there: whole, and with
    /// this digest where the store tells it.
    public func confirm(_ name: String, size: Int) async throws {
        let digest = unconfirmed.withLock { $0.removeValue(forKey: name) }
        for attempt in 0..<4 {
            if let found = try await head(name) {
                guard found.info.size == size, digest == nil || found.digest.map({ $0 == digest!.hex }) ?? true else {
                    throw lie(name, "the store says it stored \(size) bytes, and has \(found.info.size) others")
                }
                return
            }
            // Stores without read-after-write need a moment; S3 has had it since 2020.
            try await Task.sleep(for: .milliseconds(100 << attempt))
        }
        throw lie(name, "the store says it stored the object, and has none")
    }

    private func lie(_ name: String, _ detail: String) -> StoreError {
        StoreError(.failed, "write", full(name), detail, hint: "Do not use this store: run 'bgbackup repo probe'.")
    }

    private func digest(of name: String, _ size: Int) async throws -> [UInt8] {
        let bytes = try await get(name, .all, limit: size)
        return bytes.withBytes { bytes in
            var hash = SHA256()
            hash.update(bufferPointer: bytes)
            return Array(hash.finalize())
        }
    }

    // MARK: - Compare and swap

    @discardableResult
    public func replace(_ name: String, _ content: [UInt8], expecting version: String?) async throws -> String {
        var call = call("PUT", name, "replace")
        call.setBody(content)
        call.headers += extras.writing(name, digest: nil, now: ambient.now() + client.skew)
        call.headers.append(version.map { ("if-match", $0) } ?? ("if-none-match", "*"))
        let wasUnknown = Locked(false)
        do {
            let response = try await perform(call) {
                wasUnknown.withLock { $0 = true }
                return nil
            }
            if let tag = response.header("etag") { return tag }
        } catch let error as StoreError where error.kind == .exists || error.kind == .notFound {
            // Our own write may be what is in the way of its repetition.
            guard wasUnknown.withLock({ $0 }), let found = try await fetch(name, limit: 64 << 10), found.bytes == content
            else { throw StoreError(.exists, "replace", full(name), "it changed meanwhile") }
            return found.version
        }
        guard let found = try await fetch(name, limit: 64 << 10), found.bytes == content else {
            throw StoreError(.exists, "replace", full(name), "it changed meanwhile")
        }
        return found.version
    }
}
