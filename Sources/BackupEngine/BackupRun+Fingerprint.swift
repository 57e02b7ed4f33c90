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
    /// Asks the running server what it holds. A server that fails takes nothing from the backup.
    ///
    /// Called as soon as the capture is there and before it is read, so that as
    /// little as possible was written in between; a second capture replaces it.
    /// - Parameter moment: of the capture, nanoseconds since 1970
    func takeFingerprint(of moment: Int64) {
        guard let server = options.server else { return }
        report.warnings.removeAll { $0.hasPrefix(Self.withoutFingerprint) }
        report.fingerprint = nil
        let begin = ambient.now()
        do {
            let text = try ServerFingerprint.take(from: server, digest: ServerFingerprint.digest).text
            guard text.utf8.count <= FingerprintRecord.documentLimit else { throw BackupError(.failed, "it is too long") }
            report.fingerprint = FingerprintRecord(
                taken: formatTimeExact(begin), seconds: Double(begin - moment) / 1e9,
                duration: Double(ambient.now() - begin) / 1e9,
                document: text)
        } catch is CancellationError {
            // The run itself will say so.
        } catch {
            report.warnings.append("\(Self.withoutFingerprint)\(error)")
        }
    }

    private static let withoutFingerprint = "the snapshot has no fingerprint of the server: "
}
