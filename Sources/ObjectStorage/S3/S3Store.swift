import BackupBase
import Crypto
import Glibc

/// A bucket, or a prefix of one, as an object store.
///
/// What an answer of 200 is worth: a written object under `v1/` is looked up
/// again, and its size and digest compared; conditional writes are believed as
/// far as `StoreProbe` found them to hold.
public final class S3Store: ObjectStore {
    public let place: S3Place
    public var location: String { place.location }
    /// Packs on their way at once: with more, memory would not stay within 300 MiB.
    public var parallelPuts: Int { 2 }
    /// A third of a pack: few requests, and four of them at once stay near 300 MiB.
    public var readSize: Int { 23 << 20 }
    public var parallelGets: Int { 4 }
    public var lockDuration: Int64? { place.lockMode == nil ? nil : place.lockFor }

    let client: S3Client
    let ambient: Ambient
    let extras: S3Headers
    /// Whether the bucket keeps versions, once an answer has told.
    let versions = Locked<Bool?>(nil)
    /// Digests of what was put and not yet looked at.
    let unconfirmed = Locked<[String: [UInt8]]>([:])

    /// - Parameter credentialFile: file with keys, where the URL names none: a systemd credential
    /// - Throws: `StoreError` for options that make no sense or files that cannot be read
    public convenience init(
        place: S3Place, credentialFile: String? = nil, environment: @escaping @Sendable (String) -> String?,
        ambient: Ambient = .system
    ) throws {
        let transport = CurlTransport(certificates: place.certificates, connections: place.connections * 2)
        var settings = CredentialSettings(
            profile: place.profile, keyFile: place.credentialsFile ?? credentialFile, region: place.region)
        settings.environment = environment
        settings.now = ambient.now
        try self.init(
            place: place, credentials: CredentialProvider(settings: settings, transport: transport),
            transport: transport, region: profileRegion(settings), ambient: ambient)
    }

    init(
        place: S3Place, credentials: CredentialProvider, transport: any HTTPTransport, region: String? = nil,
        ambient: Ambient = .system
    ) throws {
        try place.validate()
        if let file = place.certificates, access(file, R_OK) != 0 {
            throw S3Place.wrong("cannot read ca-file \(file): \(String(cString: strerror(errno)))")
        }
        self.place = place
        self.ambient = ambient
        extras = try S3Headers(place)
        client = S3Client(place: place, credentials: credentials, transport: transport, region: region, ambient: ambient)
    }

    // MARK: - Reading

    public func get(_ name: String, _ range: ByteRange, limit: Int) async throws -> ObjectBytes {
        var call = call("GET", name, "read")
        call.limit = limit
        switch range {
        case .all: break
        case .from(let offset, let count):
            guard count > 0 else { return try await nothing(of: name) }
            call.headers.append(("range", "bytes=\(offset)-\(offset + count - 1)"))
            call.expected = count
        case .last(let count):
            guard count > 0 else { return try await nothing(of: name) }
            call.headers.append(("range", "bytes=-\(count)"))
        }
        call.headers += extras.reading
        do {
            let response = try await perform(call)
            return try S3Slice(response, range, call).bytes(limit)
        } catch let error as StoreError where error.detail == Self.beyondEnd {
            // rclone's answer to the last n bytes of an object that has fewer.
            if case .last = range { return try await get(name, .all, limit: limit) }
            return try await nothing(of: name)
        }
    }

    static let beyondEnd = "the range is beyond its end"

    private func nothing(of name: String) async throws -> ObjectBytes {
        guard let info = try await info(name) else { throw StoreError(.notFound, "read", full(name)) }
        return ObjectBytes(AlignedBuffer(capacity: 0), count: 0, objectSize: info.size)
    }

    public func info(_ name: String) async throws -> ObjectInfo? { try await head(name)?.info }

    public func list(_ prefix: String) async throws -> [ObjectInfo] {
        try await S3Listing(self).objects(prefix)
    }

    /// Only where the URL names a lock: elsewhere a marker may be anybody's way of deleting.
    public func hiddenNames(_ prefix: String) async throws -> [String] {
        place.lockMode == nil ? [] : try await S3Listing(self).hidden(prefix)
    }

    // MARK: - Removing

    public func delete(_ name: String) async throws {
        // Behind a version that goes stands the one that it replaced.
        var last: String?
        while let version = try await deleteNewest(name, after: last) { last = version }
        WorkPulse.beat()
    }

    /// - Parameter last: the version that went before this one; where it is still there, that is all that can be done
    /// - Returns: the version that went; nil where there are none
    private func deleteNewest(_ name: String, after last: String?) async throws -> String? {
        var call = call("DELETE", name, "delete")
        var version: String?
        // A marker would only hide the newest version, and a lock would say nothing.
        if versions.withLock({ $0 }) != false {
            guard let found = try await head(name), last == nil || found.version != last else { return nil }
            version = found.version
            if let version { call.query.append(("versionId", version)) }
        }
        do {
            _ = try await perform(call)
            return version
        } catch let error as StoreError where error.kind == .notFound {
            return nil
        } catch var error as StoreError where error.kind == .denied {
            // AWS answers "access denied" for a locked version, to whomever.
            if let until = try? await info(name)?.lockedUntil, until > ambient.now() + client.skew {
                error.kind = .locked
                error.detail = "it is locked until \(formatTime(until))"
                error.hint = "An object lock cannot be lifted: wait for its end."
            }
            throw error
        }
    }

    /// A thousand names a request, where the bucket keeps no versions: of those
    /// each has to be named.
    public func delete(all names: [String]) async throws {
        if versions.withLock({ $0 }) == nil, let first = names.first { _ = try await head(first) }
        guard names.count > 1, versions.withLock({ $0 }) == false else {
            for name in names { try await delete(name) }
            return
        }
        for start in stride(from: 0, to: names.count, by: 1000) {
            for name in try await S3BatchDelete(self).leftOver(Array(names[start..<min(start + 1000, names.count)])) {
                try await delete(name)
            }
            WorkPulse.beat()
        }
    }

    public var deletesTogether: Bool {
        get async throws {
            // A look at anything tells; the configuration is always there.
            if versions.withLock({ $0 }) == nil { _ = try await head("v1/config.a") }
            return versions.withLock { $0 } == false
        }
    }

    public func removeLeftovers(before: Int64) async throws { try await S3Multipart(self).abortLeftovers(before) }

    // MARK: - Objects that change

    public func fetch(_ name: String, limit: Int) async throws -> VersionedObject? {
        var call = call("GET", name, "read")
        call.limit = limit
        call.headers += extras.reading
        do {
            let response = try await perform(call)
            guard let tag = response.header("etag") else {
                throw StoreError(.failed, "read", full(name), "the store names no version (ETag)")
            }
            let modified = try modified(response, "read", name)
            let now = response.header("date").flatMap { parseHTTPDate($0) } ?? ambient.now()
            return VersionedObject(bytes: response.bytes, version: tag, modified: modified, now: now)
        } catch let error as StoreError where error.kind == .notFound {
            return nil
        }
    }

    public func extendLock(_ name: String, until: Int64) async throws {
        guard let mode = place.lockMode else { throw StoreError(.unsupported, "lock", full(name), "the URL names no lock") }
        var call = call("PUT", name, "lock")
        call.query = [("retention", "")]
        let body = Array(
            """
            <Retention xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Mode>\(mode.rawValue.uppercased())</Mode>\
            <RetainUntilDate>\(formatTime(until))</RetainUntilDate></Retention>
            """.utf8)
        call.setBody(body)
        _ = try await perform(call)
        WorkPulse.beat()
    }

    // MARK: - Calls

    func full(_ name: String) -> String { "\(location)/\(name)" }

    func key(_ name: String) -> String { place.prefix.isEmpty ? name : "\(place.prefix)/\(name)" }

    func call(_ method: String, _ name: String, _ operation: String) -> S3Call {
        S3Call(method, key(name), operation: operation, name: full(name))
    }

    /// Performs the call; every failure as a `StoreError`.
    func perform(_ call: S3Call, settle: (() async throws -> HTTPResponse?)? = nil) async throws -> HTTPResponse {
        do {
            let response = try await client.perform(call, settle: settle)
            // "null" is a version too: of an object older than the bucket's versioning.
            if response.header("x-amz-version-id") != nil { versions.withLock { $0 = true } }
            return response
        } catch let error as CancellationError {
            throw error
        } catch let error as StoreError {
            throw error
        } catch {
            throw S3Diagnosis(place: place, region: client.region, skew: client.skew).error(error, call)
        }
    }

    /// An object's state as HEAD tells it.
    struct Head: Sendable {
        var info: ObjectInfo
        var version: String?
        var digest: String?
    }

    /// When an object was written. Not 1970 where the store does not tell: what is old may be taken away.
    private func modified(_ response: HTTPResponse, _ operation: String, _ name: String) throws -> Int64 {
        guard let date = response.header("last-modified").flatMap({ parseHTTPDate($0) }) else {
            throw StoreError(.failed, operation, full(name), "the store tells no date (Last-Modified)")
        }
        return date
    }

    func head(_ name: String) async throws -> Head? {
        var call = call("HEAD", name, "look up")
        call.headers += extras.reading
        do {
            let response = try await perform(call)
            guard let size = response.header("content-length").flatMap({ Int($0) }) else {
                throw StoreError(.failed, "look up", full(name), "the store tells no size")
            }
            let version = response.header("x-amz-version-id")
            versions.withLock { $0 = version != nil }
            let modified = try modified(response, "look up", name)
            let locked = response.header("x-amz-object-lock-retain-until-date").flatMap { parseListDate($0) }
            return Head(
                info: ObjectInfo(name: name, size: size, modified: modified, lockedUntil: locked), version: version,
                digest: response.header(S3Headers.digest))
        } catch let error as StoreError where error.kind == .notFound {
            return nil
        }
    }
}

extension S3Call {
    /// A small body, with the digests that some operations demand.
    mutating func setBody(_ bytes: [UInt8]) {
        body = .bytes(bytes)
        payloadHash = RequestSigner.hash(bytes)
        headers.append(("content-md5", base64(Array(Insecure.MD5.hash(data: bytes)))))
    }
}
