import Foundation
import NIOCore

/// What a writer said about an object besides its bytes.
struct ObjectAttributes: Sendable {
    var metadata: [(String, String)] = []
    var contentType = "binary/octet-stream"
    /// Content-Encoding and its like, given back as they came.
    var contentHeaders: [(String, String)] = []
    var storageClass = "STANDARD"
    var encryption: Encryption?
    var retention: Retention?

    private static let classes: Set<String> = [
        "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "DEEP_ARCHIVE",
        "GLACIER_IR", "EXPRESS_ONEZONE",
    ]

    init(_ request: S3Request, now: Date) throws {
        for (name, value) in request.headers.sorted(by: { $0.key < $1.key }) where name.hasPrefix("x-amz-meta-") {
            metadata.append((name, value))
        }
        guard metadata.reduce(0, { $0 + $1.0.utf8.count - 11 + $1.1.utf8.count }) <= 2048 else {
            throw S3Error(400, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size")
        }
        contentType = request.header("content-type") ?? contentType
        for name in ["Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Expires"] {
            if let value = request.header(name.lowercased()) { contentHeaders.append((name, value)) }
        }
        storageClass = request.header("x-amz-storage-class") ?? storageClass
        guard Self.classes.contains(storageClass) else {
            throw S3Error(400, "InvalidStorageClass", "The storage class you specified is not valid")
        }
        encryption = try Encryption(request)
        retention = try Retention(request, now: now)
    }

    var isArchived: Bool { storageClass == "GLACIER" || storageClass == "DEEP_ARCHIVE" }
}

/// One version of an object, or a delete marker.
struct ObjectVersion: Sendable {
    var id: String
    var body: ByteBuffer
    /// Without quotes.
    var etag: String
    var modified: Date
    /// nil: a delete marker.
    var attributes: ObjectAttributes?
    var checksum: Checksum?

    var isDeleteMarker: Bool { attributes == nil }
}

/// All versions of one key, the current one last.
struct ObjectEntry: Sendable {
    var versions: [ObjectVersion]
    /// When the key came to exist, for listings and readers that notice late.
    var appeared: Date
    /// What was current before, for readers that notice an overwrite late.
    var previous: (version: ObjectVersion, until: Date)?

    var current: ObjectVersion? { versions.last.flatMap { $0.isDeleteMarker ? nil : $0 } }
}

/// A key, compared byte by byte: Swift's strings would hold "é" and "e\u{301}" for the same key.
struct ObjectKey: Hashable, Comparable, Sendable {
    let text: String

    init(_ text: String) { self.text = text }

    static func == (left: ObjectKey, right: ObjectKey) -> Bool { left.text.utf8.elementsEqual(right.text.utf8) }

    static func < (left: ObjectKey, right: ObjectKey) -> Bool {
        left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
    }

    func hash(into hasher: inout Hasher) {
        for byte in text.utf8 { hasher.combine(byte) }
    }

    func hasPrefix(_ prefix: String) -> Bool { text.utf8.starts(with: prefix.utf8) }
}
