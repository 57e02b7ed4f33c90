import BackupBase
import BackupRepository
import Crypto
import QdrantStorage

extension ServerFingerprint {
    /// SHA-256: what is named lies sealed beside the snapshot, so it needs no key.
    public static let digest: Digest = { bytes in Array(SHA256.hash(data: bytes)) }
}

extension FingerprintRecord {
    /// - Throws: `.damaged`
    public var server: ServerFingerprint {
        get throws { try ServerFingerprint(text: document) }
    }
}

extension BackupRun {
    /// Asks the running server what it holds, as shortly before the capture as can be; a
    /// second attempt replaces it. A server that fails takes nothing from the backup.
    func beginFingerprint() {
        guard let server = options.server else { return }
        report.warnings.removeAll { $0.hasPrefix(Self.withoutFingerprint) }
        (report.fingerprint, fingerprintBefore) = (nil, nil)
        let begin = ambient.now()
        withoutHarm {
            let found = try ServerFingerprint.take(from: server, digest: ServerFingerprint.digest)
            fingerprintBefore = (begin, ambient.now(), found)
        }
    }

    /// Asks again what was asked before the capture: what answers the same on
    /// both sides of it, the capture holds.
    ///
    /// Called as soon as the capture is there and before it is read.
    /// - Parameter moment: of the capture, nanoseconds since 1970
    func endFingerprint(of moment: Int64) {
        guard let server = options.server, let before = fingerprintBefore else { return }
        let (begin, end) = (before.0, before.1)
        var fingerprint = before.2
        fingerprintBefore = nil
        let again = ambient.now()
        withoutHarm {
            try fingerprint.confirm(with: server, digest: ServerFingerprint.digest)
            let text = try fingerprint.text
            guard text.utf8.count <= FingerprintRecord.documentLimit else { throw BackupError(.failed, "it is too long") }
            report.fingerprint = FingerprintRecord(
                taken: formatTimeExact(begin), seconds: Double(begin - moment) / 1e9,
                duration: Double(end - begin + ambient.now() - again) / 1e9, document: text)
        }
    }

    private func withoutHarm(_ body: () throws -> Void) {
        do { try body() } catch is CancellationError {
            // The run itself will say so.
        } catch {
            report.warnings.append("\(Self.withoutFingerprint)\(error)")
        }
    }

    private static let withoutFingerprint = "the snapshot has no fingerprint of the server: "
}
