import Foundation
import TestSupport
import Testing

@Suite(
    "Two running clusters are compared", .serialized,
    .enabled(if: Fixture.engineIsAvailable, "qdrant-edge-py cannot be installed"))
struct ValidateTests {
    let workspace: Workspace
    let blue: String

    init() throws {
        workspace = try Workspace("validate", initialize: false, kind: nil)
        blue = try SharedQdrant.url
    }

    /// Runs `validate` and returns the document; requires the exit status.
    @discardableResult
    private func validate(
        _ green: String, _ more: String..., blue: String? = nil, status: Int32, extra: [String: String] = [:],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> Report {
        let result = try workspace.expect(
            status, ["validate", "--blue", blue ?? self.blue, "--green", green, "--samples", "30", "--json"] + more, extra: extra,
            sourceLocation: sourceLocation)
        return Report(document: result.document as? [String: Any] ?? [:], result: result)
    }

    private struct Report {
        let document: [String: Any]
        let result: Program.Result

        var checks: [[String: Any]] { document["checks"] as? [[String: Any]] ?? [] }
        var verdict: String { document["verdict"] as? String ?? "" }

        /// "name" or "name of collection" of the checks with this verdict.
        func named(_ verdict: String) -> Set<String> {
            Set(
                checks.filter { $0["verdict"] as? String == verdict }.map { check in
                    let name = check["name"] as? String ?? ""
                    return (check["collection"] as? String).map { "\(name) of \($0)" } ?? name
                })
        }

        func text(_ name: String) -> String {
            checks.filter { $0["name"] as? String == name }.flatMap { check in
                ["expected", "found", "detail"].compactMap { check[$0] as? String }
            }.joined(separator: " | ")
        }
    }

    /// A green of its own, from a copy of blue's volume that a test changed.
    private func green(_ options: String..., change: (String) throws -> Void = { _ in }) throws -> QdrantServer {
        let path = workspace.path("green-\(UUID().uuidString.prefix(4))")
        try SharedQdrant.copy(to: path)
        try change(path)
        return options.count == 2 ? try QdrantServer(path, options[0], options[1]) : try QdrantServer(path)
    }

    // MARK: - The same

    @Test func `A server on a copy of the volume may take over`() throws {
        let green = try green()
        let report = try validate(green.url, "--html", workspace.path("report.html"), status: 0)
        #expect(report.named("fail") == [])
        for name in [
            "payload", "vectors", "points", "exact search", "exact scores", "configuration", "payload schema", "index",
            "replicas",
        ] {
            for collection in ["documents", "images"] { #expect(report.named("pass").contains("\(name) of \(collection)")) }
        }
        #expect(report.text("payload").contains("30 sampled points"))
        let latency = try #require(report.document["latency"] as? [[String: Any]])
        // Text, title and words; the unnamed one and patches.
        #expect(latency.map { $0["searches"] as? Int } == [60, 40])
        let page = try String(contentsOfFile: workspace.path("report.html"), encoding: .utf8)
        #expect(page.contains("Green can take over") && !page.contains("<script") && !page.contains("http-equiv=\"refresh"))
        let table = try workspace.expect(0, ["validate", "--blue", blue, "--green", green.url])
        #expect(table.output.contains("Green can take over") && table.errors == "")
    }

    @Test func `The user's own queries are asked, and wrong ones are refused with their line`() throws {
        let green = try green()
        let file = workspace.path("queries")
        let vector = "[" + (0..<16).map { "0.\($0)" }.joined(separator: ",") + "]"
        func write(_ lines: String...) throws { try Data(lines.joined(separator: "\n").utf8).write(to: URL(filePath: file)) }
        try write(
            #"{"collection":"docs-live","vector":\#(vector),"using":"text","limit":5}"#, "",
            #"{"collection":"documents","id":7,"using":"text","filter":{"must":[{"key":"active","match":{"value":true}}]}}"#,
            #"{"collection":"documents","vector":{"indices":[3,1],"values":[0.5,1]},"using":"words"}"#)
        let report = try validate(green.url, "--queries", file, status: 0)
        let latency = try #require(report.document["latency"] as? [[String: Any]])
        #expect(latency.first?["searches"] as? Int == 3)

        for (line, why) in [
            (#"{"collection":"documents"}"#, "line 2"), ("[1]", "line 2"), (#"{"collection":"documents","id":1,"k":3}"#, "'k'"),
            (#"{"collection":"nowhere","id":1}"#, "nowhere"), ("{", "line 2"),
        ] {
            try write(#"{"collection":"images","id":1,"using":"patches"}"#, line)
            #expect(try validate(green.url, "--queries", file, status: 64).result.errors.contains(why), "\(line)")
        }
        // A vector of the wrong length is the server's to refuse.
        try write(#"{"collection":"documents","vector":[1,2],"using":"text"}"#)
        #expect(try validate(green.url, "--queries", file, status: 16).named("fail").contains("search of documents"))
    }

    // MARK: - Different

    @Test func `Fewer points fail`() throws {
        let green = try green { try Fixture.run("delete", $0, "--points", "20", "--seed", "4") }
        let report = try validate(green.url, status: 16)
        #expect(report.named("fail").isSuperset(of: ["points of documents"]))
        #expect(report.result.errors.contains("points of documents"))
        #expect(report.text("points").contains("200 | "))
        #expect(report.verdict == "fail")
    }

    @Test func `Other payload and vectors fail where the counts are the same`() throws {
        let green = try green { try Fixture.run("overwrite", $0, "--points", "200", "--seed", "3") }
        let report = try validate(green.url, status: 16)
        #expect(report.named("pass").isSuperset(of: ["points of documents", "configuration of documents"]))
        #expect(
            report.named("fail").isSuperset(of: ["payload of documents", "vectors of documents", "exact search of documents"]))
    }

    @Test func `Another alias fails`() throws {
        let green = try green {
            try #"{"docs-live":"images"}"#.write(toFile: "\($0)/aliases/data.json", atomically: true, encoding: .utf8)
        }
        let report = try validate(green.url, status: 16)
        #expect(report.named("fail") == ["aliases"])
        #expect(report.text("aliases").contains("docs-live → images"))
    }

    @Test func `Another configuration fails, and one that only concerns keeping is worth a look`() throws {
        func edit(_ path: String, _ change: (inout [String: Any]) -> Void) throws {
            let url = URL(filePath: "\(path)/collections/documents/config.json")
            var json = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any])
            change(&json)
            try JSONSerialization.data(withJSONObject: json).write(to: url)
        }
        let grave = try green {
            try edit($0) { json in
                var params = json["params"] as? [String: Any] ?? [:]
                params["replication_factor"] = 7
                json["params"] = params
            }
        }
        let report = try validate(grave.url, status: 16)
        #expect(report.named("fail") == ["configuration of documents"])
        #expect(report.text("configuration").contains("params.replication_factor 7"))
        let light = try green {
            try edit($0) { json in
                var optimizer = json["optimizer_config"] as? [String: Any] ?? [:]
                optimizer["flush_interval_sec"] = 9
                json["optimizer_config"] = optimizer
            }
        }
        #expect(try validate(light.url, status: 0).named("warn").contains("configuration of documents"))
    }

    @Test func `A missing collection fails, one more is worth a look`() throws {
        let green = try green { try FileManager.default.removeItem(atPath: "\($0)/collections/images") }
        let report = try validate(green.url, status: 16)
        #expect(report.named("fail") == ["collections"])
        #expect(report.text("collections").contains("missing on green: images"))
        let turned = try validate(blue, blue: green.url, status: 0)
        #expect(turned.text("collections").contains("only on green: images"))
    }

    @Test func `Indexing that is not done fails`() throws {
        let green = try green("--status", "yellow")
        let report = try validate(green.url, status: 16)
        #expect(report.named("fail") == ["index of documents", "index of images"])
        #expect(report.result.errors.contains("status yellow"))
    }

    @Test func `Shards that are not ready fail`() throws {
        let green = try green("--slow-ready", "600")
        #expect(try validate(green.url, status: 16).named("fail") == ["ready"])
    }

    @Test func `A dead replica fails`() throws {
        let green = try green { try Fixture.run("trap", "replica-dead", $0) }
        let report = try validate(green.url, status: 16)
        #expect(report.named("fail") == ["replicas of documents"])
        #expect(report.text("replicas").contains("is Dead"))
    }

    // MARK: - Clusters

    @Test func `A green that knows an address of blue fails, an isolated one does not`() throws {
        try Fixture.run("cluster", workspace.path("c"), "--nodes", "1", "--points", "60", "--dim", "8")
        let node = workspace.path("c/node-0")
        let old = try QdrantServer(node)
        let isolated = try QdrantServer(node, "--uri", "http://green-0:6335")
        #expect(try validate(isolated.url, blue: old.url, status: 0).named("pass").contains("addresses"))
        // As restored: it has blue's address still.
        let same = try QdrantServer(node)
        let report = try validate(same.url, blue: old.url, status: 16)
        #expect(report.named("fail") == ["addresses"])
        #expect(report.text("addresses").contains("blue-0.qdrant-headless:6335"))
        // And the other way round: blue took green in.
        let taken = try QdrantServer(node, "--peers", #"{"1":"http://blue-0:6335/","2":"http://green-0:6335/"}"#)
        #expect(try validate(isolated.url, blue: taken.url, status: 16).named("fail") == ["addresses"])
    }

    // MARK: - Keys

    @Test func `A key comes from a file or credential, and a wrong or missing one is no pass`() throws {
        let key = "s3cr3t-key-0123456789"
        let file = workspace.path("key")
        try Data("\(key)\n".utf8).write(to: URL(filePath: file))
        chmod(file, 0o600)
        let green = try green("--api-key-file", file)
        #expect(try validate(green.url, "--green-api-key-file", file, status: 0).named("fail") == [])
        let credentials = workspace.path("credentials")
        try FileManager.default.createDirectory(atPath: credentials, withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: file, toPath: "\(credentials)/bgbackup.green-api-key")
        try validate(green.url, status: 0, extra: ["CREDENTIALS_DIRECTORY": credentials])

        let missing = try validate(green.url, status: 1).result
        #expect(missing.errors.contains("401") && missing.errors.contains("wants an API key"))
        try Data("another-key\n".utf8).write(to: URL(filePath: file))
        let wrong = try validate(green.url, "--green-api-key-file", file, status: 1).result
        #expect(wrong.errors.contains("does not take this API key") && !wrong.errors.contains("another-key"))
        // A server that says the key aloud does not get it into a message.
        let echo = try FalseQdrant(["/": #"{"title":"qdrant","version":"1.19.0"}"#, "/collections": "echo"])
        let shown = try validate(echo.url, "--green-api-key-file", file, status: 1).result
        #expect(shown.errors.contains("***") && !shown.errors.contains("another-key") && !shown.output.contains("another-key"))
        try Data("two\nlines\n".utf8).write(to: URL(filePath: file))
        #expect(try validate(green.url, "--green-api-key-file", file, status: 64).result.errors.contains("API key"))
        let inURL = try validate("http://me:pa55word@127.0.0.1:1", status: 64).result
        #expect(!inURL.errors.contains("pa55word"))
    }

    // MARK: - Hostile and absent servers

    @Test func `What does not answer, or not as Qdrant, is an error and no pass`() throws {
        #expect(try validate("http://127.0.0.1:1", status: 1).result.errors.contains("does not answer"))
        #expect(try validate("ftp://127.0.0.1:1", status: 64).result.errors.contains("http://"))
        #expect(try validate(blue, status: 64).result.errors.contains("the same server"))
        for manner in [OddServer.Manner.web, .mail, .tls] {
            try OddServer.with(manner) { port in
                let result = try validate("http://127.0.0.1:\(port)", status: 1).result
                #expect(result.errors.contains("127.0.0.1:\(port)"), "\(manner)")
                #expect(result.errors.contains(manner == .web ? "not Qdrant" : "does not answer"), "\(manner)")
            }
        }
        try OddServer.with(.tls) { port in
            let result = try validate("https://127.0.0.1:\(port)", status: 1).result
            #expect(result.errors.contains("--ca-file"))
        }
    }

    @Test(arguments: [
        ("/collections", "huge", "64"), ("/collections", "deep", "nested too deeply"), ("/collections", "{}", "no result"),
        ("/collections", "redirect http://127.0.0.1:1/", "redirect"),
        ("/collections/documents", #"{"result":7,"status":"ok"}"#, "status"),
        ("/collections/documents/points/count", #"{"result":{"count":-1},"status":"ok"}"#, "count"),
        ("/collections/documents/points", #"{"result":[{"id":true}],"status":"ok"}"#, "point"),
        ("/cluster", #"{"result":{"status":"enabled","peers":{"x":1}},"status":"ok"}"#, "peers"),
    ])
    func `An answer that is none ends it with a sentence`(path: String, answer: String, words: String) throws {
        let green = try FalseQdrant([path: answer], behind: blue)
        let result = try validate(green.url, status: 1).result
        #expect(result.errors.contains(words) && result.errors.contains("\(green.url)\(path)"))
    }

    @Test func `An error of the server is a check that fails, in its own words`() throws {
        let green = try FalseQdrant(
            ["/collections/documents/points/count": #"status 500 {"status":{"error":"shard 0 is on fire"}}"#], behind: blue)
        let report = try validate(green.url, status: 16)
        #expect(report.named("fail") == ["points of documents"])
        #expect(report.text("points").contains("shard 0 is on fire"))
    }

    @Test func `Where nothing was compared nothing has passed`() throws {
        let empty = try FalseQdrant(
            [
                "/collections": #"{"result":{"collections":[]},"status":"ok"}"#,
                "/aliases": #"{"result":{"aliases":[]},"status":"ok"}"#,
            ], behind: blue)
        let other = try FalseQdrant(
            [
                "/collections": #"{"result":{"collections":[]},"status":"ok"}"#,
                "/aliases": #"{"result":{"aliases":[]},"status":"ok"}"#,
            ],
            behind: blue)
        #expect(try validate(other.url, blue: empty.url, status: 16).result.errors.contains("nothing was compared"))
        let silent = try FalseQdrant(
            ["/collections/documents/points/query": #"{"result":{"points":[]},"status":"ok"}"#], behind: blue)
        #expect(try validate(blue, blue: silent.url, status: 16).named("fail").contains("payload of documents"))
    }

    @Test func `Names that a page would run or a terminal obey stay text`() throws {
        let name = #"<script>alert(1)</script>\u001b[31m\u202e'\"&"#
        let green = try FalseQdrant(
            [
                "/collections":
                    #"{"result":{"collections":[{"name":"\#(name)"},{"name":"documents"},{"name":"images"}]},"status":"ok"}"#,
                "/collections/images": #"status 400 {"status":{"error":"<img src=x onerror=alert(2)>"}}"#,
            ], behind: blue)
        let page = workspace.path("page.html")
        let result = try workspace.expect(16, ["validate", "--blue", blue, "--green", green.url, "--html", page])
        #expect(!result.output.contains("\u{1b}") && !result.errors.contains("\u{1b}"))
        let text = try String(contentsOfFile: page, encoding: .utf8)
        #expect(text.contains("&lt;script&gt;alert(1)") && text.contains("&lt;img src=x"))
        for bad in ["<script", "<img", "\u{1b}", "\u{202e}"] { #expect(!text.contains(bad)) }
    }

    @Test func `A TLS server with an authority of its own is reached by --ca-file only`() throws {
        let made = try Program.tool(
            "openssl",
            [
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout",
                workspace.path("key.pem"), "-out", workspace.path("ca.pem"), "-addext", "subjectAltName=IP:127.0.0.1",
            ])
        #expect(made.status == 0)
        let green = try TLSFront(workspace, behind: blue)
        #expect(try validate(green.url, status: 1).result.errors.contains("certificate"))
        #expect(try validate(green.url, "--ca-file", workspace.path("ca.pem"), status: 0).named("fail") == [])
        #expect(try validate(green.url, "--ca-file", workspace.path("nowhere"), status: 64).result.errors.contains("nowhere"))
    }
}

/// TLS in front of a server, by the certificate in the workspace.
private final class TLSFront {
    let url: String
    private let running: Running

    private static let script = """
        import socket, ssl, sys, threading
        certificate, key, port, file = sys.argv[1:]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        listener = socket.create_server(("127.0.0.1", 0))
        def copy(one, other):
            try:
                while data := one.recv(65536): other.sendall(data)
                other.shutdown(socket.SHUT_WR)
            except OSError: pass
        def serve(client):
            try: client = context.wrap_socket(client, server_side=True)
            except OSError: return
            server = socket.create_connection(("127.0.0.1", int(port)))
            threading.Thread(target=copy, args=(client, server), daemon=True).start()
            copy(server, client)
        open(file + ".new", "w").write(str(listener.getsockname()[1]))
        import os; os.rename(file + ".new", file)
        while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        """

    init(_ workspace: Workspace, behind: String) throws {
        let file = workspace.path("tls-port")
        running = try Running(
            "/usr/bin/env",
            [
                "python3", "-c", Self.script, workspace.path("ca.pem"), workspace.path("key.pem"),
                String(behind.split(separator: ":").last!), file,
            ], environment: [:])
        try running.wait { FileManager.default.fileExists(atPath: file) }
        url = "https://127.0.0.1:\(try String(contentsOfFile: file, encoding: .utf8))"
    }
}
