import BackupBase
import Testing

@testable import QdrantStorage

@Suite("JSON as servers write it")
struct JSONParserTests {
    private func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: Array(text.utf8)) }

    @Test func `Numbers keep all their bits`() throws {
        #expect(try parse("18446744073709551615") == .unsigned(.max))
        #expect(try parse("-9223372036854775808") == .signed(.min))
        #expect(try parse("-0") == .unsigned(0))
        #expect(try parse("18446744073709551616") == .double(18446744073709551616))
        #expect(try parse("[0.1, 1e-7, 1.5E3]") == .array([.double(0.1), .double(1e-7), .double(1500)]))
    }

    @Test func `Texts are decoded`() throws {
        #expect(try parse(#""a\n\"\\\/\u00e4\ud83d\ude00ü""#) == .string("a\n\"\\/ä😀ü"))
        #expect(try parse(#" {"a" : [ true , null ,{ } ] } "#) == .object(["a": .array([.bool(true), .null, .object([:])])]))
    }

    @Test(arguments: [
        "", "{", "[1,]", "[1 2]", "{\"a\"}", "{a:1}", "01", "1.", "1e", "-", "+1", "nul", "\"a", "\"\\x\"", "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\u{1}\"", "1 1", "NaN", "1e999", "\"\\u+123\"",
    ])
    func `What is no JSON is refused`(text: String) {
        #expect(throws: JSONProblem.self) { try parse(text) }
    }

    @Test func `Depth is bounded, and bytes that are no text are refused`() throws {
        let (open, close) = (String(repeating: "[", count: 100), String(repeating: "]", count: 100))
        #expect(throws: Never.self) { try parse(open + close) }
        #expect(throws: JSONProblem.self) { try parse(String(repeating: "[", count: 1_000_000)) }
        #expect(throws: JSONProblem.self) { try JSONValue(parsing: [0x22, 0xff, 0x22]) }
    }
}

@Suite("Addresses, vectors and differences")
struct ComparisonTests {
    @Test(arguments: [
        ("http://Host", "http://host:6333"), ("https://a.b:443/q/", "https://a.b:443/q"), ("http://[::1]:6", "http://[::1]:6"),
        ("HTTP://h:1/", "http://h:1"),
    ])
    func `An address is read`(text: String, shown: String) throws {
        #expect("\(try QdrantAddress(text))" == shown)
    }

    @Test(arguments: [
        "host:6333", "http://", "http://u:p@h", "http://h:0", "http://h:99999", "http://h?x", "http://h#x", "http://h h",
        "http://a:b:c",
        "http://[::1", "file:///etc", "http://h:6333x",
    ])
    func `What is no address is refused`(text: String) {
        #expect(throws: BackupError.self) { try QdrantAddress(text) }
    }

    @Test func `A collection's name cannot leave its place in a path`() {
        #expect(QdrantAddress.encode("../a?b/ü") == "%2E%2E%2Fa%3Fb%2F%C3%BC")
    }

    @Test func `Vectors are compared by kind and value`() throws {
        func vector(_ text: String) throws -> StoredVector { try #require(StoredVector(JSONValue(parsing: Array(text.utf8)))) }
        #expect(try vector("[1,2]").distance(to: vector("[1.0,2]")) == 0)
        #expect(try vector("[1,2]").distance(to: vector("[1,2,3]")) == .infinity)
        #expect(try vector("[1,100]").distance(to: vector("[1,101]")) < 0.01)
        #expect(try vector("[[1],[2]]").distance(to: vector("[[1],[2.5]]")) == 0.2)
        #expect(
            try vector(#"{"indices":[5,1],"values":[0.5,1]}"#).distance(to: vector(#"{"indices":[1,5],"values":[1,0.5]}"#)) == 0)
        #expect(try vector(#"{"indices":[5],"values":[1]}"#).distance(to: vector(#"{"indices":[6],"values":[1]}"#)) == .infinity)
    }

    @Test func `Results that tie at the end may stand for each other`() throws {
        func found(_ pairs: [(UInt64, Double)]) -> [FoundPoint] {
            pairs.compactMap { FoundPoint(.object(["id": .unsigned($0.0), "score": .double($0.1)])) }
        }
        let old = found([(1, 0.9), (2, 0.5)])
        #expect(SearchComparison.overlap(old, found([(1, 0.9), (3, 0.5)]), 1e-5) == 1)
        #expect(SearchComparison.overlap(old, found([(1, 0.9), (3, 0.4)]), 1e-5) == 0.5)
        #expect(SearchComparison.overlap(old, found([(1, 0.9)]), 1e-5) == 0.5)
        #expect(SearchComparison.overlap(old, [], 1e-5) == 0)
        #expect(SearchComparison.overlap([], [], 1e-5) == 1)
    }

    @Test func `A configuration that one version does not know is worth a look only`() throws {
        let (old, new) = (
            JSONValue.object(["a": .unsigned(1)]), JSONValue.object(["a": .double(1), "b": .bool(true), "c": .null])
        )
        #expect(ClusterComparison.configurationCheck("c", old, new, isSameVersion: false).verdict == .warn)
        #expect(ClusterComparison.configurationCheck("c", old, new, isSameVersion: true).verdict == .fail)
        #expect(ClusterComparison.configurationCheck("c", old, old, isSameVersion: true).verdict == .pass)
    }

    @Test func `Addresses in common are found by endpoint and by host`() throws {
        func info(_ peers: String) throws -> ClusterInfo {
            try #require(ClusterInfo(JSONValue(parsing: Array(#"{"status":"enabled","peer_id":1,"peers":{\#(peers)}}"#.utf8))))
        }
        let (blue, green) = (try QdrantAddress("http://blue-0:6333"), try QdrantAddress("http://green-0:6333"))
        func verdict(_ one: String, _ two: String) throws -> ServerCheck.Verdict {
            try ClusterComparison.addressCheck(info(one), info(two), blue, green).verdict
        }
        #expect(try verdict(#""1":{"uri":"http://b:6335/"}"#, #""1":{"uri":"http://g:6335"}"#) == .pass)
        #expect(try verdict(#""1":{"uri":"http://b:6335/"}"#, #""1":{"uri":"http://B"}"#) == .fail)
        #expect(try verdict(#""1":{"uri":"http://b:6335/"}"#, #""1":{"uri":"http://blue-0:7"}"#) == .fail)
        #expect(try verdict(#""1":{"uri":"http://green-0:1/"}"#, #""1":{"uri":"http://g"}"#) == .fail)
    }

    @Test func `Versions bring their breaking changes`() {
        #expect(BreakingChange.between(ServerVersion(1, 15), ServerVersion(1, 19)).count == 5)
        #expect(BreakingChange.between(ServerVersion(1, 19), ServerVersion(1, 19, 2)).isEmpty)
    }
}
