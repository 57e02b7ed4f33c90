import BackupBase
import Foundation
import TestSupport
import Testing

@testable import ObjectStorage

/// A program that ends when nobody holds it, and says on which port it listens.
private final class Listener: Sendable {
    let port: Int
    private let process = Process()
    private let input = Pipe()

    init(python script: String, _ arguments: [String], in directory: TemporaryDirectory) async throws {
        let portFile = directory("port-\(UUID().uuidString)")
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", script, portFile] + arguments
        process.standardInput = input
        try process.run()
        let process = process
        var found = 0
        _ = try await eventually {
            found =
                (try? String(contentsOfFile: portFile, encoding: .utf8)).flatMap {
                    Int($0.trimmingCharacters(in: .whitespacesAndNewlines))
                } ?? 0
            guard process.isRunning || found > 0 else { throw BackupError(.failed, "the listener ended") }
            return found > 0
        }
        port = found
    }

    deinit {
        try? input.fileHandleForWriting.close()
        process.terminate()
    }
}

/// TLS with authorities of one's own, and proxies.
@Suite(.serialized, .enabled(if: S3Bench.hasStrict, "the strict server is not built")) struct S3ConnectionTests {
    /// Speaks TLS in front of a server that does not.
    private static let front = """
        import os, socket, ssl, sys, threading
        portfile, certificate, key, backend = sys.argv[1:]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        def pump(source, target):
            try:
                while data := source.recv(65536): target.sendall(data)
            except OSError: pass
            for end in (source, target):
                try: end.shutdown(socket.SHUT_RDWR)
                except OSError: pass
        def serve(raw):
            try: client = context.wrap_socket(raw, server_side=True)
            except (OSError, ssl.SSLError): return raw.close()
            server = socket.create_connection(("127.0.0.1", int(backend)))
            threading.Thread(target=pump, args=(server, client), daemon=True).start()
            pump(client, server)
        def accept():
            while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        with open(portfile + ".new", "w") as f: f.write(str(listener.getsockname()[1]))
        os.rename(portfile + ".new", portfile)
        sys.stdin.buffer.read()
        """

    /// Two authorities, and a certificate by the first for 127.0.0.1, and one for another host.
    private static let authorities = """
        set -e; cd "$1"
        for ca in right wrong; do
          openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $ca.key -out $ca.pem -days 2 -subj "/CN=$ca CA"
        done
        make() {
          openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout $1.key -out $1.csr -subj "/CN=$1"
          printf 'subjectAltName=%s' "$2" > $1.ext
          openssl x509 -req -in $1.csr -CA right.pem -CAkey right.key -CAcreateserial -days 2 -extfile $1.ext -out $1.crt
        }
        make server IP:127.0.0.1
        make other DNS:other.example
        """

    @Test(.enabled(if: Program.hasTool("openssl"), "no openssl"))
    func `TLS takes the authority that the URL names, and no other`() async throws {
        let bench = try await S3Bench(own: false)
        let directory = try TemporaryDirectory("tls")
        let made = try Program.run("/bin/sh", ["-c", Self.authorities, "sh", directory.path])
        try #require(made.status == 0, "\(made.errors)")
        let server = try await Listener(
            python: Self.front, [directory("server.crt"), directory("server.key"), "\(bench.server.port)"], in: directory)
        let other = try await Listener(
            python: Self.front, [directory("other.crt"), directory("other.key"), "\(bench.server.port)"], in: directory)
        let endpoint = "https://127.0.0.1:\(server.port)"
        let store = try bench.store("ca-file=\(directory("right.pem"))", endpoint: endpoint)
        let bytes = [UInt8](repeating: 9, count: 3 << 20)
        try await store.put("v1/x", bytes)
        #expect(try await store.bytes("v1/x") == bytes)
        #expect(try await store.list("v1/").count == 1)

        let strangers = [
            try bench.store("ca-file=\(directory("wrong.pem"))", endpoint: endpoint), try bench.store(endpoint: endpoint),
            // Another host's certificate, though by the right authority.
            try bench.store("ca-file=\(directory("right.pem"))", endpoint: "https://127.0.0.1:\(other.port)"),
        ]
        for store in strangers {
            let error = await storeError { _ = try await store.list("v1/") }
            #expect(error?.kind == .unreachable && error?.detail.contains("is not safe") == true, "\(error?.whole ?? "no error")")
            #expect(error?.hint?.contains("ca-file") == true)
        }
        // TLS spoken to who speaks none, and none to who does.
        let error = await storeError {
            _ = try await bench.store(endpoint: bench.server.endpoint.replacing("http", with: "https")).list("v1/")
        }
        #expect(error?.kind == .unreachable && error?.hint != nil, "\(error?.whole ?? "no error")")
        let plain = try bench.store("retry-for=1s", endpoint: endpoint.replacing("https", with: "http"))
        #expect(await storeError { _ = try await plain.list("v1/") } != nil)
    }

    @Test func `an authority's file that is not there is an error of the URL`() async throws {
        let bench = try await S3Bench(own: false)
        #expect { try bench.store("ca-file=/nowhere/ca.pem") } throws: {
            ($0 as? StoreError)?.kind == .usage && ($0 as? StoreError)?.detail.contains("/nowhere/ca.pem") == true
        }
    }

    @Test func `an authority's file that holds none is an error`() async throws {
        let bench = try await S3Bench(own: false)
        let directory = try TemporaryDirectory("tls")
        try Data("nothing\n".utf8).write(to: URL(filePath: directory("ca.pem")))
        let store = try bench.store(
            "ca-file=\(directory("ca.pem"))", endpoint: bench.server.endpoint.replacing("http", with: "https"))
        let error = await storeError { _ = try await store.list("v1/") }
        #expect(error?.kind == .unreachable && error?.hint?.contains("ca-file") == true, "\(error?.whole ?? "no error")")
    }

    @Test func `the proxy variables are honoured, and their exceptions`() async throws {
        // In a process of its own: the variables are the process's.
        await #expect(processExitsWith: .success) {
            let directory = try TemporaryDirectory("proxy")
            let log = directory("log")
            let proxy = try await Listener(python: proxyScript, [log], in: directory)
            for name in ["NO_PROXY", "no_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] { unsetenv(name) }
            setenv("http_proxy", "http://127.0.0.1:\(proxy.port)", 1)
            setenv("https_proxy", "http://127.0.0.1:\(proxy.port)", 1)
            func store(_ endpoint: String) throws -> S3Store {
                try S3Store.scripted("s3://bucket?endpoint=\(endpoint)&retry-for=1s", CurlTransport())
            }
            try #require(try await store("http://nowhere.invalid").info("k")?.size == 5)
            let error = await storeError { _ = try await store("https://safe.invalid").info("k") }
            try #require(error?.kind == .unreachable)
            let asked = try String(contentsOfFile: log, encoding: .utf8)
            try #require(asked.contains("HEAD http://nowhere.invalid/bucket/k HTTP/1.1"))
            try #require(asked.contains("CONNECT safe.invalid:443 HTTP/1.1"))
            setenv("no_proxy", "nowhere.invalid", 1)
            let direct = await storeError { _ = try await store("http://nowhere.invalid").info("k") }
            try #require(direct?.detail.contains("has no address") == true)
            try #require(try String(contentsOfFile: log, encoding: .utf8) == asked)
        }
    }

    @Test func `a connection that the server has closed meanwhile is made anew`() async throws {
        let bench = try await S3Bench(configuration: "{\"personality\": {\"closeAfterAnswer\": true}}")
        let store = try bench.store()
        for number in 0..<5 { try await store.put("tmp/\(number)", [UInt8](repeating: 1, count: 200_000)) }
        #expect(try await bench.log().count == 5, "and nothing is sent twice")
    }

    @Test func `headers without end are cut off`() async throws {
        let directory = try TemporaryDirectory("headers")
        let server = try await Listener(python: endlessScript, [], in: directory)
        let error = await #expect(throws: TransportError.self) {
            try await CurlTransport().send(HTTPRequest("GET", "http://127.0.0.1:\(server.port)/"))
        }
        #expect(error?.kind == .tooLarge, "\(error?.detail ?? "")")
    }

    @Test func `a transport that goes away ends what is under way`() async throws {
        let bench = try await S3Bench(configuration: "{\"rates\": {\"hang\": 1}, \"hangSeconds\": 300}")
        let task = Task { try await bench.store().list("v1/") }
        #expect(try await eventually { try await bench.statistics().count == 1 })
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
    }
}

/// Logs request lines; answers HEAD itself and refuses tunnels.
private let proxyScript = """
    import os, socketserver, sys, threading
    portfile, log = sys.argv[1:]
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            line = self.rfile.readline().decode().strip()
            while self.rfile.readline().strip(): pass
            with open(log, "a") as f: f.write(line + "\\n")
            if line.startswith("CONNECT"):
                self.wfile.write(b"HTTP/1.1 403 Forbidden\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
            else:
                self.wfile.write(b"HTTP/1.1 200 OK\\r\\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\n")
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(portfile + ".new", "w") as f: f.write(str(server.server_address[1]))
    os.rename(portfile + ".new", portfile)
    sys.stdin.buffer.read()
    """

/// Sends headers until the other side has enough.
private let endlessScript = """
    import os, socketserver, sys, threading
    portfile, = sys.argv[1:]
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            try:
                self.wfile.write(b"HTTP/1.1 200 OK\\r\\n")
                for number in range(1 << 20): self.wfile.write(b"x-%d: %s\\r\\n" % (number, b"y" * 1000))
            except OSError: pass
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(portfile + ".new", "w") as f: f.write(str(server.server_address[1]))
    os.rename(portfile + ".new", portfile)
    sys.stdin.buffer.read()
    """
