import BackupBase
import Testing

@testable import ObjectStorage

/// `s3://bucket/prefix?option=value&…`: what each option does and what is refused, with what words.
@Suite struct S3PlaceTests {
    private static func place(_ url: String, _ environment: [String: String] = [:]) throws -> S3Place {
        try S3Place(url: url, environment: { environment[$0] })
    }

    private func refusal(_ url: String, _ environment: [String: String] = [:]) -> StoreError? {
        do {
            try Self.place(url, environment).validate()
            return nil
        } catch let error as StoreError {
            return error
        } catch {
            Issue.record("\(error) is no StoreError")
            return nil
        }
    }

    // MARK: - Bucket and prefix

    @Test(arguments: [
        ("s3://bucket", "bucket", "", "s3://bucket"), ("s3://bucket/", "bucket", "", "s3://bucket"),
        ("s3://bucket/a/b//", "bucket", "a/b", "s3://bucket/a/b"), ("s3://b.c-d/x?region=r", "b.c-d", "x", "s3://b.c-d/x"),
        ("s3://bucket/ä b@c:d", "bucket", "ä b@c:d", "s3://bucket/ä b@c:d"),
        ("s3://My_Bucket", "My_Bucket", "", "s3://My_Bucket"),
    ])
    func `bucket and prefix are read`(_ url: String, _ bucket: String, _ prefix: String, _ location: String) throws {
        let place = try Self.place(url)
        #expect(place.bucket == bucket && place.prefix == prefix && place.location == location)
    }

    @Test(arguments: [
        "s3://", "s3:///x", "s3://ab", "s3://a..b/x", "s3://bu cket/x", "s3://bücket",
        "s3://" + String(repeating: "b", count: 64),
        "s3://bucket/a//b", "s3://bucket/./a", "s3://bucket/a/../b", "s3://bucket//a", "s3://bucket/a\nb", "s3://bucket/a\u{7f}",
        "s3://bucket/" + String(repeating: "p", count: 513), "http://bucket/x", "s3:/bucket", "",
    ])
    func `what is no bucket or prefix is refused, and printed without control characters`(_ url: String) throws {
        let error = try #require(refusal(url))
        #expect(error.kind == .usage)
        #expect(
            error.detail.hasSuffix("is no name of a bucket") || error.detail.hasSuffix("is no prefix for objects")
                || error.detail.hasSuffix("is no s3:// URL"), "\(error)")
        #expect(!error.whole.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7f })
    }

    @Test(arguments: [
        "s3://AKIAX:canary@bucket/prefix", "s3://canary@bucket", "s3://AKIAX:can/canary@bucket/prefix",
        "s3://AKIAX:canary/bucket", "s3://user:canary@bucket?region=x", "s3://b?endpoint=https://user:canary@host",
        "s3://bucket?endpoint=https://user:canary@host", "s3://bucket?endpoint=https://user:ca/canary@host",
        "s3://bucket?endpoint=user:canary@host",
    ])
    func `keys in a URL are refused and not repeated`(_ url: String) throws {
        let error = try #require(refusal(url))
        #expect(error.kind == .usage)
        #expect(!error.whole.contains("canary"), "\(error.whole)")
    }

    @Test func `keys in an endpoint of the environment are not repeated either`() throws {
        let error = try #require(refusal("s3://bucket", ["AWS_ENDPOINT_URL_S3": "https://user:canary@host"]))
        #expect(!error.whole.contains("canary"))
    }

    // MARK: - Options

    struct Good: Sendable, CustomTestStringConvertible {
        let option: String
        let holds: @Sendable (S3Place) -> Bool
        var testDescription: String { option }
        init(_ option: String, _ holds: @escaping @Sendable (S3Place) -> Bool) { (self.option, self.holds) = (option, holds) }
    }

    static let good = [
        Good("endpoint=https://h:9000/") { $0.endpoint == "https://h:9000" },
        Good("endpoint=h.example") { $0.endpoint == "https://h.example" },
        Good("endpoint=http://[::1]:9") { $0.endpoint == "http://[::1]:9" },
        Good("endpoint=https%3A%2F%2Fh") { $0.endpoint == "https://h" },
        Good("region=eu-west-1") { $0.region == "eu-west-1" },
        Good("style=virtual") { $0.addressing == .virtual }, Good("style=PATH") { $0.addressing == .path },
        Good("profile=back%20up") { $0.profile == "back up" },
        Good("credentials=/etc/keys") { $0.credentialsFile == "/etc/keys" },
        Good("ca-file=/etc/ca.pem") { $0.certificates == "/etc/ca.pem" },
        Good("class=STANDARD_IA") { $0.storageClass == "STANDARD_IA" },
        Good("sse=AES256") { $0.encryption == .store }, Good("sse=aws:kms") { $0.encryption == .kms(key: nil) },
        Good("sse=aws:kms:arn:aws:kms:eu-1:1:key/a-b") { $0.encryption == .kms(key: "arn:aws:kms:eu-1:1:key/a-b") },
        Good("sse-c-key=/k") { $0.encryption == .customer(keyFile: "/k") },
        Good("checksums=on") { $0.checksums == true }, Good("checksums=off") { $0.checksums == false },
        Good("checksums=yes") { $0.checksums == true }, Good("checksums=false") { $0.checksums == false },
        Good("lock=compliance&lock-for=30d") { $0.lockMode == .compliance && $0.lockFor == 2_592_000_000_000_000 },
        Good("lock=Governance&lock-for=24h") { $0.lockMode == .governance && $0.lockFor == 86_400_000_000_000 },
        Good("connections=1") { $0.connections == 1 }, Good("connections=256") { $0.connections == 256 },
        Good("timeout=5") { $0.stallTimeout == 5 }, Good("timeout=1.5s") { $0.stallTimeout == 1.5 },
        Good("retry-for=10m") { $0.patience == 600 }, Good("retry-for=0.5h") { $0.patience == 1800 },
        Good("limit-upload=20MiB") { $0.uploadLimit == 20 << 20 }, Good("limit-download=1MB") { $0.downloadLimit == 1_000_000 },
        Good("multipart-above=100MiB") { $0.multipartAbove == 100 << 20 }, Good("part-size=8MiB") { $0.partSize == 8 << 20 },
    ]

    @Test(arguments: good) func `an option does what it says`(_ good: Good) throws {
        let place = try Self.place("s3://bucket/p?\(good.option)")
        try place.validate()
        #expect(good.holds(place))
        #expect(place.location == "s3://bucket/p", "options are not for messages")
    }

    @Test func `every option is tried here, and has a meaning`() {
        let tried = Set(Self.good.flatMap { $0.option.split(separator: "&").map { String($0.prefix { $0 != "=" }) } })
        #expect(tried == Set(S3Place.options.map(\.name)))
        #expect(S3Place.options.allSatisfy { !$0.meaning.isEmpty })
    }

    @Test func `what is not said has its default`() throws {
        let place = try Self.place("s3://bucket")
        #expect(place.endpoint == nil && place.region == nil && place.addressing == nil && place.profile == nil)
        #expect(place.encryption == .none && place.checksums == nil && place.lockMode == nil && place.lockFor == 0)
        #expect(place.connections == 8 && place.stallTimeout == 30 && place.patience == 600)
        #expect(
            place.uploadLimit == 0 && place.downloadLimit == 0 && place.multipartAbove == 5 << 30 && place.partSize == 64 << 20)
    }

    @Test(arguments: [
        ("style=both", "'both' is no value of the option 'style'", "path"),
        ("checksums=maybe", "'maybe' is no value of the option 'checksums'", "'on' or 'off'"),
        ("lock=legal", "'legal' is no value of the option 'lock'", "compliance"),
        ("lock=compliance", "lock and lock-for belong together", "lock-for=30d"),
        ("lock-for=30d", "lock and lock-for belong together", "lock=compliance"),
        ("lock=compliance&lock-for=1h", "less than a day", "lock-for=30d"),
        ("lock=compliance&lock-for=soon", "'soon' is no value of the option 'lock-for'", "unit"),
        ("lock=compliance&lock-for=nan", "'nan' is no value of the option 'lock-for'", "unit"),
        ("lock=compliance&lock-for=inf", "'inf' is no value of the option 'lock-for'", "unit"),
        ("lock=compliance&lock-for=999999d", "is no value of the option 'lock-for'", "unit"),
        ("connections=0", "'0' is no value of the option 'connections'", "1 to 256"),
        ("connections=257", "'257' is no value", "1 to 256"), ("connections=many", "'many' is no value", "1 to 256"),
        ("timeout=0", "'0' is no value of the option 'timeout'", "unit"), ("timeout=-1s", "'-1s' is no value", "unit"),
        ("timeout=d", "'d' is no value", "unit"), ("retry-for=5w", "'5w' is no value of the option 'retry-for'", "unit"),
        ("retry-for=31m", "too late", "retry-for=30m"),
        ("limit-upload=fast", "'fast' is no value of the option 'limit-upload'", "20MiB"),
        ("limit-upload=0", "'0' is no value", "20MiB"), ("limit-download=-5", "'-5' is no value", "20MiB"),
        ("multipart-above=5XiB", "'5XiB' is no value of the option 'multipart-above'", "20MiB"),
        ("part-size=0", "'0' is no value of the option 'part-size'", "20MiB"),
        ("region=eu west", "is no value of the option 'region'", "one word"),
        ("region=a%0Ab", "'a\\x0ab' is no value", "one word"),
        ("class=%C3%A4", "is no value of the option 'class'", "one word"),
        ("sse=AES128", "'AES128' is no value of the option 'sse'", "aws:kms"),
        ("sse=aws:kms:", "no value of the option 'sse'", "one word"),
        ("sse=aws:kms:a%20b", "'a b' is no value", "one word"),
        ("endpoint=ftp://h", "the endpoint is no address of a server: 'h'", "https://HOST"),
        ("endpoint=https://", "the endpoint is no address", "https://HOST"),
        ("endpoint=https://h/path", "the endpoint is no address of a server: 'h/path'", "https://HOST"),
        ("endpoint=https://h?x", "the endpoint is no address", "https://HOST"),
        ("endpoint=http://h&sse-c-key=/k", "SSE-C would send its key in the clear", "https"),
        ("region", "the option 'region' has no value", "?region=VALUE"), ("region=", "has no value", "?region=VALUE"),
        ("region=%zz", "has no value", "?region=VALUE"), ("=x", "there is no option ''", "Did you mean"),
    ])
    func `a wrong value is refused with what would be right`(_ option: String, _ message: String, _ hint: String) throws {
        let error = try #require(refusal("s3://bucket?\(option)"), "\(option) is accepted")
        #expect(error.kind == .usage)
        #expect(error.detail.contains(message), "\(error)")
        #expect(error.hint?.contains(hint) ?? hint.isEmpty, "\(error.hint ?? "no hint")")
    }

    @Test(arguments: [
        ("regoin=x", "region"), ("end-point=x", "endpoint"), ("Class=x", "class"), ("ssec-key=x", "sse-c-key"),
        ("upload-limit=1", "limit"), ("lockfor=30d", "lock-for"), ("checksum=on", "checksums"), ("cafile=x", "ca-file"),
        ("retry=1m", "retry-for"), ("conections=3", "connections"),
    ])
    func `a misspelt option is answered with the nearest`(_ option: String, _ near: String) throws {
        let error = try #require(refusal("s3://bucket?\(option)"))
        #expect(error.detail.contains("there is no option '\(option.prefix { $0 != "=" })'"))
        #expect(error.hint?.hasPrefix("Did you mean '") ?? false)
        if option != "upload-limit=1", option != "retry=1m" { #expect(error.hint == "Did you mean '\(near)'?") }
    }

    @Test func `an option's name is printed without control characters`() throws {
        let error = try #require(refusal("s3://bucket?a\u{1b}[2Jb=1"))
        #expect(!error.whole.contains("\u{1b}"))
        let long = try #require(refusal("s3://bucket?" + String(repeating: "x", count: 5000) + "=1"))
        #expect(long.hint?.hasPrefix("Did you mean") ?? false)
    }

    @Test(arguments: ["http://127.0.0.1:9", "http://localhost", "http://[::1]:9"])
    func `SSE-C may go in the clear to this machine only`(_ endpoint: String) {
        #expect(refusal("s3://bucket?endpoint=\(endpoint)&sse-c-key=/k") == nil)
        for other in ["http://127.evil.example", "http://localhost.evil.example", "http://10.0.0.1"] {
            #expect(refusal("s3://bucket?endpoint=\(other)&sse-c-key=/k") != nil, "\(other)")
        }
    }

    // MARK: - Environment

    @Test func `endpoint and region come from the environment where the URL names none`() throws {
        let environment = [
            "AWS_ENDPOINT_URL_S3": "http://s3:1", "AWS_ENDPOINT_URL": "http://all:2", "AWS_REGION": "r1",
            "AWS_DEFAULT_REGION": "r2",
        ]
        var place = try Self.place("s3://bucket", environment)
        #expect(place.endpoint == "http://s3:1" && place.region == "r1")
        place = try Self.place("s3://bucket", environment.filter { !["AWS_ENDPOINT_URL_S3", "AWS_REGION"].contains($0.key) })
        #expect(place.endpoint == "http://all:2" && place.region == "r2")
        place = try Self.place("s3://bucket?endpoint=https://mine&region=own", environment)
        #expect(place.endpoint == "https://mine" && place.region == "own")
    }

    @Test func `an empty variable counts as unset, as in every AWS SDK`() throws {
        let empty = ["AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""]
        var place = try Self.place("s3://bucket", empty)
        #expect(place.endpoint == nil && place.region == nil)
        place = try Self.place("s3://bucket", empty.merging(["AWS_ENDPOINT_URL": "http://h", "AWS_DEFAULT_REGION": "r"]) { $1 })
        #expect(place.endpoint == "http://h" && place.region == "r")
    }

    @Test func `a wrong region of the environment is refused before it gets into a host's name`() throws {
        for region in ["eu west", "x.evil.example/", "a\nb"] {
            #expect(refusal("s3://bucket", ["AWS_REGION": region]) != nil, "\(region)")
        }
    }
}

@Suite struct S3AddressTests {
    private func address(_ url: String, _ region: String = "eu-west-1", host: String? = nil) throws -> S3Address {
        S3Address(try S3Place(url: url, environment: { _ in nil }), region: region, host: host)
    }

    @Test(arguments: [
        ("s3://bucket", "eu-west-1", "https://bucket.s3.eu-west-1.amazonaws.com", "/k"),
        ("s3://bucket", "cn-north-1", "https://bucket.s3.cn-north-1.amazonaws.com.cn", "/k"),
        ("s3://my.bucket", "eu-west-1", "https://s3.eu-west-1.amazonaws.com", "/my.bucket/k"),
        ("s3://my.bucket?style=virtual", "eu-west-1", "https://my.bucket.s3.eu-west-1.amazonaws.com", "/k"),
        ("s3://bucket?style=path", "eu-west-1", "https://s3.eu-west-1.amazonaws.com", "/bucket/k"),
        ("s3://bucket?endpoint=http://h:9000", "x", "http://h:9000", "/bucket/k"),
        ("s3://bucket?endpoint=http://h:9000&style=virtual", "x", "http://bucket.h:9000", "/k"),
        ("s3://bucket?endpoint=https://h:443", "x", "https://h", "/bucket/k"),
        ("s3://bucket?endpoint=http://h:80", "x", "http://h", "/bucket/k"),
        ("s3://bucket?endpoint=http://h:443", "x", "http://h:443", "/bucket/k"),
        ("s3://bucket?endpoint=http://[::1]:9", "x", "http://[::1]:9", "/bucket/k"),
    ])
    func `a bucket has its address`(_ url: String, _ region: String, _ base: String, _ path: String) throws {
        let address = try address(url, region)
        #expect(address.base == base)
        #expect(base.hasSuffix("//" + address.host))
        #expect(address.path("k") == path)
        #expect(address.path(nil) == (path == "/k" ? "/" : String(path.dropLast(2))))
    }

    @Test func `a key is encoded, its slashes are kept`() throws {
        #expect(try address("s3://bucket").path("a/b c+d/ä") == "/a/b%20c%2Bd/%C3%A4")
    }

    @Test func `a redirect names the host, if it stays with TLS`() throws {
        let safe = try address("s3://bucket")
        let plain = try address("s3://bucket?endpoint=http://h")
        #expect(S3Address.host(ofRedirect: "https://bucket.s3-x.amazonaws.com/k?a", from: safe) == "bucket.s3-x.amazonaws.com")
        #expect(S3Address.host(ofRedirect: "https://h:8443?x", from: safe) == "h:8443")
        #expect(S3Address.host(ofRedirect: "http://bucket.s3.amazonaws.com/k", from: safe) == nil)
        #expect(S3Address.host(ofRedirect: "http://other:9/k", from: plain) == "other:9")
        #expect(S3Address.host(ofRedirect: "https://other/k", from: plain) == nil)
        for wrong in [
            "", "/k", "//h/k", "https://", "https:///k", "https://user@h/k", "https://" + String(repeating: "h", count: 300),
        ] {
            #expect(S3Address.host(ofRedirect: wrong, from: safe) == nil, "\(wrong)")
        }
        let other = try address("s3://bucket", host: "other")
        #expect(other.base == "https://other" && other.path("k") == "/k")
    }

    @Test(arguments: [307, 308, 301]) func `a redirect that leaves TLS is an error, and nothing is sent there`(_ status: Int)
        async throws
    {
        let transport = ScriptedTransport { _, _ in HTTPResponse(status, [("location", "http://evil.example/bucket/k")]) }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        let error = await storeError { _ = try await store.info("v1/config") }
        #expect(error?.kind == .usage, "\(error?.whole ?? "none")")
        #expect(transport.requests.count == 1 && transport.requests.allSatisfy { $0.url.hasPrefix("https://h/") })
    }

    @Test func `a temporary redirect is signed for its host, for one request`() async throws {
        let transport = ScriptedTransport { request, _ in
            if request.url.hasPrefix("https://h/") { return HTTPResponse(307, [("location", "https://other:1/bucket/k")]) }
            return HTTPResponse(200, [("content-length", "3"), dated])
        }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        #expect(try await store.info("k")?.size == 3)
        #expect(try await store.info("k")?.size == 3)
        #expect(
            transport.requests.map { $0.url } == [
                "https://h/bucket/k", "https://other:1/bucket/k", "https://h/bucket/k", "https://other:1/bucket/k",
            ])
        let signatures = Set(transport.requests.prefix(2).map { $0.value(of: "authorization") ?? "" })
        #expect(signatures.count == 2, "signed anew for the other host")
    }

    @Test func `redirected requests do not take each other's host`() async throws {
        let transport = ScriptedTransport { request, _ in
            // Answered late, so that several are under way.
            try await Task.sleep(for: .milliseconds(5))
            if request.url.hasPrefix("https://h/") { return HTTPResponse(307, [("location", "https://other/bucket/k")]) }
            return HTTPResponse(200, [("content-length", "3"), dated])
        }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        let found = await withTaskGroup(of: Int?.self) { group in
            for number in 0..<8 { group.addTask { try? await store.info("k\(number)")?.size } }
            return await group.reduce(into: []) { $0.append($1) }
        }
        #expect(found == Array(repeating: 3, count: 8))
    }

    @Test func `redirects that go round in circles end`() async throws {
        let transport = ScriptedTransport { _, _ in HTTPResponse(307, [("location", "https://other/bucket/k")]) }
        let store = try S3Store.scripted("s3://bucket?endpoint=https://h", transport)
        #expect(await storeError { _ = try await store.info("k") }?.kind == .usage)
        #expect(transport.requests.count == 2)
    }
}
