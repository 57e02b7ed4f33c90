import BackupBase
import Testing

@testable import ObjectStorage

private func parse(_ text: String) -> XMLElement? { Array(text.utf8).withUnsafeBytes { XMLElement.parse($0) } }

/// XML of servers, also of hostile ones.
@Suite struct XMLElementTests {
    @Test func `a document becomes a tree of names and texts`() throws {
        let root = try #require(
            parse("<?xml version=\"1.0\"?>\n<A x='1'><B>1</B><B> 2&amp;&#x41;<![CDATA[<]]></B><C><D/></C></A>\n"))
        #expect(root.name == "A")
        #expect(root.all("B").map(\.text) == ["1", " 2&A<"])
        #expect(root["B"] == "1" && root["D"] == nil && root["C"] == "")
        #expect(root.first("C")?.first("D")?.text == "")
    }

    @Test(arguments: [
        "", " ", "x", "<A>", "<A></B>", "<A/><B/>", "<A>&x;</A>", "<A", "\u{feff}", "{}", "<!DOCTYPE html><html></html>",
        "<A a=1/>",
    ])
    func `what is no document is nil`(_ text: String) { #expect(parse(text) == nil) }

    @Test func `every cut of a document is nil`() {
        let whole =
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Contents><Key>a&lt;ä</Key></Contents></ListBucketResult>"
        #expect(parse(whole) != nil)
        let bytes = Array(whole.utf8)
        for length in 0..<bytes.count { #expect(bytes[..<length].withUnsafeBytes { XMLElement.parse($0) } == nil, "\(length)") }
    }

    @Test func `a document with entities of its own is refused before they grow`() {
        var bomb = "<!DOCTYPE a [<!ENTITY l0 \"lol\">"
        for level in 1...9 { bomb += "<!ENTITY l\(level) \"\(String(repeating: "&l\(level - 1);", count: 10))\">" }
        #expect(parse(bomb + "]><a>&l9;</a>") == nil)
        #expect(parse("<!DOCTYPE a [<!ENTITY x \"y\">]><a>b</a>") == nil)
        #expect(parse("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>") == nil)
    }

    @Test func `depth, number and size are bounded`() {
        func deep(_ count: Int) -> String { String(repeating: "<a>", count: count) + String(repeating: "</a>", count: count) }
        #expect(parse(deep(16)) != nil)
        #expect(parse(deep(17)) == nil)
        #expect(parse(deep(100_000)) == nil)
        #expect(parse("<a>" + String(repeating: "<b/>", count: 49_999) + "</a>") != nil)
        #expect(parse("<a>" + String(repeating: "<b/>", count: 50_000) + "</a>") == nil)
        #expect(parse("<a>" + String(repeating: "x", count: 16 << 20) + "</a>") == nil)
    }

    @Test func `bytes that are no UTF-8 or no characters of XML are refused`() {
        #expect(
            [0x3c, 0x61, 0x3e, 0xff, 0xfe, 0x3c, 0x2f, 0x61, 0x3e].map { UInt8($0) }.withUnsafeBytes { XMLElement.parse($0) }
                == nil)
        #expect(parse("<a>\u{1}</a>") == nil && parse("<a>&#1;</a>") == nil && parse("<a>\u{0}</a>") == nil)
    }

    @Test func `another encoding in the declaration changes nothing`() {
        #expect(parse("<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a>ä</a>")?.text == "ä")
    }

    @Test func `altered documents never crash the parser`() {
        let whole = Array("<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>a &amp; b</Message></Error>".utf8)
        for seed in 0..<2000 {
            var random = Seeded(seed)
            var bytes = whole
            for _ in 0..<random.number(1...6) { bytes[random.number(0...bytes.count - 1)] = UInt8(random.number(0...255)) }
            _ = bytes.withUnsafeBytes { XMLElement.parse($0) }
        }
    }
}

/// Whether an answer to a ranged read is what was asked for.
@Suite struct S3SliceTests {
    private let content = Array("0123456789".utf8)

    private func slice(_ range: ByteRange, _ header: String?, _ bytes: [UInt8], status: Int = 206) throws -> ObjectBytes {
        let headers = header.map { [(name: "content-range", value: $0)] } ?? []
        let response = HTTPResponse(status: status, headers: headers, body: AlignedBuffer(copying: bytes))
        return try S3Slice(response, range, S3Call("GET", "k", operation: "read", name: "k")).bytes(100)
    }

    @Test func `what was asked for is returned, with the size of the whole`() throws {
        for (range, header, from, to) in [
            (ByteRange.from(2, count: 3), "bytes 2-4/10", 2, 5), (.from(8, count: 5), "bytes 8-9/10", 8, 10),
            (.last(4), "bytes 6-9/10", 6, 10), (.last(40), "bytes 0-9/10", 0, 10), (.from(0, count: 10), "bytes 0-9/10", 0, 10),
        ] {
            let got = try slice(range, header, Array(content[from..<to]))
            #expect(got.array == Array(content[from..<to]) && got.objectSize == 10, "\(range)")
        }
    }

    @Test func `the header counts, not the status`() throws {
        #expect(try slice(.from(2, count: 3), "bytes 2-4/10", Array(content[2..<5]), status: 200).array == Array(content[2..<5]))
    }

    @Test func `the whole object instead of a part is cut here`() throws {
        for (range, expected) in [
            (ByteRange.from(2, count: 3), content[2..<5]), (.from(8, count: 5), content[8...]), (.from(20, count: 5), []),
            (.last(4), content[6...]), (.last(40), content[...]), (.all, content[...]),
        ] {
            let got = try slice(range, nil, content, status: 200)
            #expect(got.array == Array(expected) && got.objectSize == 10, "\(range)")
        }
    }

    @Test(arguments: [
        "bytes 3-5/10", "bytes 2-5/10", "bytes 1-3/10", "bytes 2-4/4", "bytes 2-4/*", "bytes */10", "bytes 4-2/10",
        "bytes -2-4/10",
        "2-4/10", "bytes 2-4", "items 2-4/10", "bytes 2-4/10/1", "bytes 2-4/99999999999999999999", "",
        "bytes 2-9223372036854775807/9223372036854775807",
    ])
    func `another part than asked for is an error`(_ header: String) {
        #expect(throws: StoreError.self) { try slice(.from(2, count: 3), header, Array(content[2..<5])) }
    }

    @Test func `fewer or more bytes than the header says are an error`() {
        #expect(throws: StoreError.self) { try slice(.from(2, count: 3), "bytes 2-4/10", Array(content[2..<4])) }
        #expect(throws: StoreError.self) { try slice(.from(2, count: 3), "bytes 2-4/10", Array(content[2..<6])) }
        #expect(throws: StoreError.self) { try slice(.last(3), "bytes 6-8/10", Array(content[6..<9])) }
    }
}

@Suite struct HTTPDateTests {
    @Test func `dates of headers in all three forms`() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            #expect(parseHTTPDate(text) == 784_111_777_000_000_000, "\(text)")
        }
        for text in ["", "now", "Sun, 06 Nov", String(repeating: "9", count: 100), "\u{0}"] {
            #expect(parseHTTPDate(text) == nil, "\(text)")
        }
    }

    @Test func `dates of lists, with and without fractions`() {
        #expect(parseListDate("2009-10-12T17:50:30.000Z") == 1_255_369_830_000_000_000)
        #expect(parseListDate("2009-10-12T17:50:30Z") == 1_255_369_830_000_000_000)
        #expect(parseListDate("2009-10-12T17:50:30.123456789Z") == 1_255_369_830_123_456_789)
        #expect(parseListDate("2009-10-12T17:50:30.5Z") == 1_255_369_830_500_000_000)
        #expect(parseListDate("1970-01-01T00:00:00Z") == 0)
    }

    @Test func `dates beyond what 64 bits hold are far ahead, not an overflow`() throws {
        for date in [parseListDate("9999-12-31T23:59:59.999Z"), parseHTTPDate("Fri, 31 Dec 9999 23:59:59 GMT")] {
            let far = try #require(date)
            // Seven years of room for what is added.
            #expect((8_900_000_000_000_000_000...9_010_000_000_000_000_000).contains(far))
        }
        #expect(parseListDate("2254-01-01T00:00:00Z") == 8_962_185_600_000_000_000)
    }

    @Test(arguments: [
        "", "Z", "2009-10-12", "2009-10-12T17:50:30", "2009-10-12T17:50:30+01:00", "2009-13-12T17:50:30Z", "2009-00-12T17:50:30Z",
        "2009-10-32T17:50:30Z", "2009-10-12T17:50Z", "1969-10-12T17:50:30Z", "99999-10-12T17:50:30Z", "2009-10-12T17:50:30.x5Z",
        "2009-10-12T17:50:30.-5Z", "2009-10-12T-7:50:30Z", "2009-10-12T17:99999999999:30Z", "2009-10-12T24:50:30Z",
        "2009-10-12T17:60:30Z", "2009--10-12T17:50:30Z",
        "2009-10-12T17:50:30.",
        "2009-10-12T2147483647:50:30Z", "2009-10-12T17:50:30." + String(repeating: "1", count: 50) + "Z",
    ])
    func `what is no such date is nil`(_ text: String) { #expect(parseListDate(text) == nil, "\(text)") }
}

/// What an answer says went wrong, and what a person is told.
@Suite struct S3DiagnosisTests {
    @Test func `code, message, region and time are read`() {
        let failure = S3Failure(
            HTTPResponse(
                400, [("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("location", "https://x/")],
                "<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>eu-1</Region></Error>"))
        #expect(failure.code == "AuthorizationHeaderMalformed" && failure.message == "m" && failure.region == "eu-1")
        #expect(failure.serverTime == 784_111_777_000_000_000 && failure.location == "https://x/")
        #expect(S3Failure(HTTPResponse(301, [("x-amz-bucket-region", "r")])).region == "r")
    }

    @Test func `an answer without a document is known by its status`() {
        for (status, code) in [
            (403, "AccessDenied"), (404, "NotFound"), (412, "PreconditionFailed"), (503, "ServiceUnavailable"), (418, "HTTP 418"),
        ] {
            for body in ["", "<html><body>proxy</body></html>", "<Error/>", "{}", "<Error><Code></Code></Error>"] {
                #expect(S3Failure(HTTPResponse(status, [], body)).code == code)
            }
        }
    }

    @Test func `what passes is known from what does not`() {
        for status in [429, 500, 502, 503, 504] { #expect(S3Failure(HTTPResponse(status)).isTransient) }
        for status in [301, 400, 403, 404, 409, 411, 412, 416, 501, 507] {
            #expect(!S3Failure(HTTPResponse(status)).isTransient, "\(status)")
        }
        for code in ["RequestTimeout", "OperationAborted", "ConditionalRequestConflict", "SlowDown"] {
            #expect(S3Failure(.error(409, code)).isTransient)
        }
        #expect(S3Failure(.error(503, "SlowDown")).isOverload && S3Failure(HTTPResponse(429)).isOverload)
        #expect(!S3Failure(HTTPResponse(500)).isOverload)
        #expect(S3Failure(.error(400, "ExpiredToken")).isExpiry && !S3Failure(.error(403, "AccessDenied")).isExpiry)
    }

    private func told(
        _ response: HTTPResponse, _ url: String = "s3://bucket?endpoint=https://h", headers: [(name: String, value: String)] = []
    )
        throws -> StoreError
    {
        var call = S3Call("PUT", "k", operation: "write", name: "s3://bucket/k")
        call.headers = headers
        let place = try S3Place(url: url, environment: { _ in nil })
        return S3Diagnosis(place: place, region: "r", skew: 1_200_000_000_000).error(S3Failure(response), call)
    }

    @Test(arguments: [
        (404, "NoSuchBucket", StoreError.Kind.noStore, "there is no bucket 'bucket' at https://h", "Make the bucket"),
        (403, "InvalidAccessKeyId", .credentials, "does not know the access key", "doctor"),
        (403, "SignatureDoesNotMatch", .credentials, "secret key", "doctor"),
        (400, "ExpiredToken", .credentials, "expired", "doctor"),
        (403, "RequestTimeTooSkewed", .failed, "20m00s off", "timedatectl"),
        (400, "AuthorizationHeaderMalformed", .usage, "not in region 'r'", "?region="),
        (301, "PermanentRedirect", .usage, "not in region 'r'", "?region="),
        (403, "QuotaExceeded", .full, "QuotaExceeded: no", ""),
        (507, "XMinioStorageFull", .full, "XMinioStorageFull", ""), (507, "Other", .full, "Other", ""),
        (400, "EntityTooLarge", .tooLarge, "EntityTooLarge", ""),
        (403, "InvalidObjectState", .failed, "archive", "restore-object"),
        (403, "AccessDenied", .denied, "does not allow it (AccessDenied: no)", "iam-policy"),
        (404, "NoSuchKey", .notFound, "", ""), (412, "PreconditionFailed", .exists, "", ""),
        (501, "NotImplemented", .unsupported, "NotImplemented", ""),
        (500, "InternalError", .failed, "the store answers 500 (InternalError: no)", "try again later"),
        (400, "InvalidRequest", .failed, "the store answers 400 (InvalidRequest: no)", ""),
        (302, "Moved", .failed, "the store answers 302", ""),
    ])
    func `a refusal is told in a sentence and with what to do`(
        _ status: Int, _ code: String, _ kind: StoreError.Kind, _ detail: String, _ hint: String
    ) throws {
        let error = try told(.error(status, code))
        #expect(error.kind == kind, "\(error.whole)")
        #expect(detail.isEmpty ? error.detail.isEmpty : error.detail.contains(detail), "\(error.whole)")
        #expect(hint.isEmpty || error.hint?.contains(hint) ?? false, "\(error.whole)")
        #expect(error.description.hasPrefix("cannot write s3://bucket/k: "))
    }

    @Test func `a conflict about a condition is about the object`() throws {
        #expect(try told(.error(409, "Other"), headers: [("if-none-match", "*")]).kind == .exists)
        #expect(try told(.error(409, "Other")).kind == .failed)
    }

    @Test func `a server's words cannot move a cursor, and are short`() throws {
        let error = try told(.error(403, "Access&#x9b;Denied", "\u{9b}2J" + String(repeating: "x", count: 100_000) + "&#xd;"))
        #expect(!error.whole.unicodeScalars.contains { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) })
        #expect(error.whole.utf8.count < 4000)
        let region = try told(HTTPResponse(301, [("x-amz-bucket-region", "\u{1b}]0;x\u{7}")]))
        #expect(!region.whole.unicodeScalars.contains { $0.value < 0x20 })
    }

    @Test(arguments: [
        (TransportError.Kind.resolve, StoreError.Kind.unreachable, "has no address", "endpoint"),
        (.connect, .unreachable, "nobody answers", "proxy"), (.tls, .unreachable, "not safe", "ca-file"),
        (.stalled, .unreachable, "in time", "timeout"), (.broken, .unreachable, "breaking the connection", "http or https"),
        (.tooLarge, .tooLarge, "why", ""), (.unusable, .usage, "cannot be used", "https://HOST"),
    ])
    func `no answer is told by its reason`(
        _ kind: TransportError.Kind, _ expected: StoreError.Kind, _ detail: String, _ hint: String
    ) throws {
        let place = try S3Place(url: "s3://bucket?endpoint=https://h", environment: { _ in nil })
        let error = S3Diagnosis(place: place, region: "r", skew: 0)
            .error(TransportError(kind: kind, detail: "why"), S3Call("GET", "k", operation: "read", name: "k"))
        #expect(error.kind == expected && error.detail.contains(detail), "\(error.whole)")
        #expect(error.hint?.contains(hint) ?? hint.isEmpty)
    }

    @Test func `a credential error keeps its words`() throws {
        let place = try S3Place(url: "s3://bucket", environment: { _ in nil })
        let error = S3Diagnosis(place: place, region: "r", skew: 0)
            .error(CredentialError("no keys", hint: "Set them."), S3Call("GET", "k", operation: "read", name: "k"))
        #expect(error.kind == .credentials && error.detail == "no keys" && error.hint == "Set them.")
    }

    @Test func `a header with a terminal's commands is cut at its line's end`() async throws {
        let transport = ScriptedTransport { _, _ in
            .error(403, "AccessDenied", "a\u{9b}31mb")
        }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        let error = await storeError { try await store.put("v1/a", AlignedBuffer(copying: [1]), ifAbsent: true) }
        #expect(error?.kind == .denied)
        #expect(error?.whole.contains("\u{9b}") == false)
    }
}
