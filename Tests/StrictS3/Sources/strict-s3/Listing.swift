import Foundation

extension StoreState {
    /// One page of names: keys and common prefixes in byte order.
    private struct Page {
        var keys: [ObjectKey] = []
        var prefixes: [String] = []
        /// The last name on the page, when there are more.
        var next: String?
        var last = ""

        var count: Int { keys.count + prefixes.count }
    }

    func listObjects(_ request: S3Request, now: Date) throws -> Answer {
        let personality = config.personality
        let bucket = try bucket(request)
        let asked = try request.queryNumber("max-keys", 0...1000) ?? 1000
        let limit = min(asked, personality.maxKeysCap ?? 1000)
        let encode = try nameEncoder(request)
        let prefix = request.queryValue("prefix") ?? ""
        let delimiter = request.queryValue("delimiter").flatMap { $0.isEmpty ? nil : $0 }
        let token = request.queryValue("continuation-token")
        let startAfter = personality.ignoreStartAfter ? nil : request.queryValue("start-after")
        let from = try token.map(Self.decodeToken)
        var page = self.page(
            bucket, prefix: prefix, delimiter: delimiter, after: from ?? startAfter ?? "", isToken: from != nil,
            limit: limit, now: now)
        var next = page.next.map(Self.encodeToken)
        if personality.listLoops { next = token ?? next ?? Self.encodeToken(page.last) }
        if personality.truncateListing { next = nil }
        if personality.listUnsorted { page.keys = Self.shuffled(page.keys) }
        let document = XMLText.document("ListBucketResult") { xml in
            xml.element("Name", bucket.name)
            xml.element("Prefix", encode(prefix))
            if let delimiter { xml.element("Delimiter", encode(delimiter)) }
            if let startAfter { xml.element("StartAfter", encode(startAfter)) }
            if let token { xml.element("ContinuationToken", token) }
            if let next { xml.element("NextContinuationToken", next) }
            xml.element("KeyCount", page.count)
            xml.element("MaxKeys", asked)
            if request.hasQuery("encoding-type") { xml.element("EncodingType", "url") }
            xml.element("IsTruncated", next != nil)
            for key in page.keys {
                guard let version = bucket[key]?.current, let attributes = version.attributes else { continue }
                xml.element("Contents") { xml in
                    xml.element("Key", encode(key.text))
                    xml.element("LastModified", Timestamp.iso(version.modified))
                    xml.element("ETag", quoted(version.etag))
                    if let checksum = version.checksum {
                        xml.element("ChecksumAlgorithm", checksum.algorithm.rawValue.uppercased())
                    }
                    xml.element("Size", version.body.readableBytes)
                    if request.queryValue("fetch-owner") == "true" {
                        xml.element("Owner") { $0.element("ID", "strict") }
                    }
                    xml.element("StorageClass", attributes.storageClass)
                }
            }
            for prefix in page.prefixes {
                xml.element("CommonPrefixes") { $0.element("Prefix", encode(prefix)) }
            }
        }
        return Answer(200, xml: document)
    }

    private func page(
        _ bucket: Bucket, prefix: String, delimiter: String?, after: String, isToken: Bool, limit: Int, now: Date
    ) -> Page {
        var page = Page()
        guard limit > 0 else { return page }
        let after = ObjectKey(after)
        // Off by one as some gateways are, whose marker includes the key it names.
        let repeats = isToken && config.personality.listDuplicates
        var seen: String?
        if isToken, let delimiter, let last = Self.commonPrefix(after.text, prefix, delimiter), last == after.text {
            seen = repeats ? nil : last
        }
        var index = bucket.firstIndex(notBefore: max(after, ObjectKey(prefix)))
        while index < bucket.keys.count {
            let key = bucket.keys[index]
            index += 1
            guard key.hasPrefix(prefix) else { break }
            if key == after, !repeats { continue }
            guard let entry = bucket[key], entry.current != nil,
                now.timeIntervalSince(entry.appeared) >= config.personality.listDelaySeconds
            else { continue }
            let common = delimiter.flatMap { Self.commonPrefix(key.text, prefix, $0) }
            if let common, common == seen { continue }
            if page.count == limit {
                page.next = page.last
                break
            }
            if let common {
                seen = common
                page.prefixes.append(common)
                page.last = common
            } else {
                page.keys.append(key)
                page.last = key.text
            }
        }
        return page
    }

    /// The part of a key up to and with the first delimiter behind the prefix.
    private static func commonPrefix(_ key: String, _ prefix: String, _ delimiter: String) -> String? {
        let bytes = Array(key.utf8)
        let wanted = Array(delimiter.utf8)
        var start = prefix.utf8.count
        while start + wanted.count <= bytes.count {
            if bytes[start..<start + wanted.count].elementsEqual(wanted) {
                return String(decoding: bytes[..<(start + wanted.count)], as: UTF8.self)
            }
            start += 1
        }
        return nil
    }

    private static func encodeToken(_ name: String) -> String { Data("1\(name)".utf8).base64EncodedString() }

    private static func decodeToken(_ token: String) throws -> String {
        guard let data = Data(base64Encoded: token), data.first == 0x31 else {
            throw S3Error.invalidArgument("The continuation token provided is incorrect")
        }
        return String(decoding: data.dropFirst(), as: UTF8.self)
    }

    /// Every second from the front, then the rest from the back: unsorted, and the same every time.
    private static func shuffled(_ keys: [ObjectKey]) -> [ObjectKey] {
        let indices = keys.indices
        return indices.filter { $0 % 2 == 1 }.map { keys[$0] }
            + indices.reversed().filter { $0 % 2 == 0 }.map { keys[$0] }
    }
}
