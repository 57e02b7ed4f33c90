/// One `Range: bytes=…` against an object's size.
enum ByteRange {
    /// nil: the header is none S3 understands, and the whole object is the answer.
    static func parse(_ header: String, size: Int) throws -> Range<Int>? {
        guard header.hasPrefix("bytes=") else { return nil }
        let halves = header.dropFirst(6).split(separator: "-", omittingEmptySubsequences: false)
        guard halves.count == 2 else { return nil }
        if halves[0].isEmpty {
            guard let suffix = number(halves[1]) else { return nil }
            guard suffix > 0, size > 0 else { throw unsatisfiable(header, size) }
            return max(0, size - suffix)..<size
        }
        guard let first = number(halves[0]) else { return nil }
        let last = halves[1].isEmpty ? size - 1 : number(halves[1])
        guard let last, first <= last || halves[1].isEmpty else { return nil }
        guard first < size else { throw unsatisfiable(header, size) }
        return first..<min(last, size - 1) + 1
    }

    /// Digits only; a number too large for Int is as good as the largest.
    private static func number(_ text: Substring) -> Int? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return Int(text) ?? .max - 1
    }

    private static func unsatisfiable(_ header: String, _ size: Int) -> S3Error {
        S3Error(
            416, "InvalidRange", "The requested range is not satisfiable",
            details: [("RangeRequested", header), ("ActualObjectSize", String(size))],
            headers: [("Content-Range", "bytes */\(size)")])
    }
}
