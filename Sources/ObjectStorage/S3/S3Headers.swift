import BackupBase
import Crypto
import Glibc

/// The headers that a repository's options add to its requests.
struct S3Headers: Sendable {
    private let place: S3Place
    private let customerKey: [UInt8]?

    /// Where the writer's digest of an object is kept: it settles what became of
    /// a write whose answer was lost.
    static let digest = "x-amz-meta-bgbackup-sha256"

    init(_ place: S3Place) throws {
        self.place = place
        guard case .customer(let file) = place.encryption else {
            customerKey = nil
            return
        }
        customerKey = try Self.key(in: file)
    }

    /// Whether x-amz-checksum-sha256 is sent: the store then compares it itself.
    /// With a lock it is demanded (S3 refused kopia's writes without one).
    var checksums: Bool { place.checksums ?? (place.endpoint == nil || place.lockMode != nil) }

    /// For reading an object and asking for it.
    var reading: [(name: String, value: String)] {
        guard let key = customerKey else { return [] }
        let name = "x-amz-server-side-encryption-customer"
        return [
            ("\(name)-algorithm", "AES256"), ("\(name)-key", base64(key)),
            ("\(name)-key-md5", base64(Array(Insecure.MD5.hash(data: key)))),
        ]
    }

    /// For making an object.
    func writing(_ name: String, digest: [UInt8]?, now: Int64) -> [(name: String, value: String)] {
        var headers = [("content-type", "application/octet-stream")] + reading
        if let digest { headers.append((Self.digest, digest.hex)) }
        if name.hasPrefix("v1/packs/"), let storageClass = place.storageClass {
            headers.append(("x-amz-storage-class", storageClass))
        }
        switch place.encryption {
        case .none, .customer: break
        case .store: headers.append(("x-amz-server-side-encryption", "AES256"))
        case .kms(let key):
            headers.append(("x-amz-server-side-encryption", "aws:kms"))
            if let key { headers.append(("x-amz-server-side-encryption-aws-kms-key-id", key)) }
        }
        if Self.isLocked(name), let mode = place.lockMode {
            headers.append(("x-amz-object-lock-mode", mode.rawValue.uppercased()))
            headers.append(("x-amz-object-lock-retain-until-date", formatTime(now + place.lockFor)))
        }
        return headers
    }

    /// Scratch is never locked: leases change, and leftovers must be able to go. Nor are notes: holds are released. But
    /// without those that tell what took a pack's place snapshots would not restore.
    private static func isLocked(_ name: String) -> Bool {
        name.hasPrefix("v1/") && !name.hasPrefix("v1/notes/") || name.hasPrefix("v1/notes/succession/")
    }

    private static func key(in file: String) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let descriptor = open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw S3Place.wrong("cannot read sse-c-key \(file): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        let count = read(descriptor, &bytes, bytes.count)
        let raw = Array(bytes.prefix(max(count, 0)))
        let text = String(decoding: raw, as: UTF8.self).filter { !$0.isWhitespace }
        for key in [raw, bytesFromHex(text.lowercased()), bytesFromBase64(text)] where key?.count == 32 { return key! }
        throw S3Place.wrong("\(file) holds no key of 32 bytes for SSE-C", "Make one with 'openssl rand -base64 32'.")
    }
}
