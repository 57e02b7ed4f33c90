import BackupBase

/// The bytes of an answer to a ranged read, if they are those that were asked for.
struct S3Slice {
    private let response: HTTPResponse
    private let range: ByteRange
    private let call: S3Call

    init(_ response: HTTPResponse, _ range: ByteRange, _ call: S3Call) {
        self.response = response
        self.range = range
        self.call = call
    }

    func bytes(_ limit: Int) throws -> ObjectBytes {
        let got = response.body.count
        // The header counts, not the status: rclone answers a range with 200.
        guard let text = response.header("content-range"), range != .all else {
            // The whole object: asked for, or from a store that ignores ranges.
            let wanted = Self.slice(range, of: got)
            return ObjectBytes(response.body, start: wanted.lowerBound, count: wanted.count, objectSize: got)
        }
        guard let (first, last, size) = Self.parse(text) else {
            throw wrong("its Content-Range is '\(printable(text.utf8.prefix(80)))'")
        }
        let wanted = Self.slice(range, of: size)
        guard wanted.lowerBound == first, wanted.upperBound == last + 1, wanted.count == got else {
            throw wrong("it returns bytes \(first)-\(last) of \(size), \(got) of them, instead of \(wanted)")
        }
        return ObjectBytes(response.body, start: 0, count: got, objectSize: size)
    }

    private func wrong(_ detail: String) -> StoreError {
        StoreError(.failed, call.operation, call.name, detail, hint: "Run 'bgbackup repo probe': this store does not keep to S3.")
    }

    /// What a range means for an object of this size.
    private static func slice(_ range: ByteRange, of size: Int) -> Range<Int> {
        switch range {
        case .all: 0..<size
        case .from(let offset, let count): min(offset, size)..<min(offset + count, size)
        case .last(let count): max(size - count, 0)..<size
        }
    }

    /// "bytes 0-9/100"
    private static func parse(_ text: String) -> (first: Int, last: Int, size: Int)? {
        let parts = text.dropFirst("bytes ".count)
            .split(omittingEmptySubsequences: false, whereSeparator: { $0 == "-" || $0 == "/" }).map { Int($0) }
        guard text.hasPrefix("bytes "), parts.count == 3, let first = parts[0], let last = parts[1], let size = parts[2],
            0 <= first, first <= last, last < size
        else { return nil }
        return (first, last, size)
    }
}
