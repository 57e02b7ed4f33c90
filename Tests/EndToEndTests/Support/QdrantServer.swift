import BackupBase
import Foundation
import TestSupport

/// Qdrant's REST, answered from the shards of a volume by the real engine; ends with its last reference.
final class QdrantServer: @unchecked Sendable {
    // Unchecked: immutable once it runs.
    let url: String
    private let process = Process()
    private let input = Pipe()
    private let folder: TemporaryDirectory

    /// - Parameter options: of `qdrant_volume.py serve`
    init(_ volume: String, _ options: String...) throws {
        folder = try TemporaryDirectory("serve")
        for name in ["out", "err"] { try Data().write(to: URL(filePath: folder(name))) }
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", Fixture.script, "serve", volume, "--until-eof"] + options
        // Its copy of the volume goes with the folder, whatever ends it.
        process.environment = ProcessInfo.processInfo.environment.merging(["TMPDIR": folder.path]) { $1 }
        process.standardInput = input
        process.standardOutput = try FileHandle(forWritingTo: URL(filePath: folder("out")))
        process.standardError = try FileHandle(forWritingTo: URL(filePath: folder("err")))
        try process.run()
        url = try Self.wait(process, folder)
    }

    private static func wait(_ process: Process, _ folder: TemporaryDirectory) throws -> String {
        let end = monotonicSeconds() + 120
        while monotonicSeconds() < end {
            let text = try String(contentsOfFile: folder("out"), encoding: .utf8)
            if text.hasSuffix("\n"), let line = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: String],
                let url = line["url"]
            {
                return url
            }
            guard process.isRunning else { break }
            usleep(10_000)
        }
        throw BackupError(.failed, "the server did not start: \(try String(contentsOfFile: folder("err"), encoding: .utf8))")
    }

    /// Leaves nothing running.
    func stop() {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }

    deinit { stop() }
}

/// A volume of a single node, and a server on it, which several tests share: made once, never changed.
enum SharedQdrant {
    private static let made = Locked<Result<(folder: TemporaryDirectory, server: QdrantServer), any Error>?>(nil)

    private static func get() throws -> (folder: TemporaryDirectory, server: QdrantServer) {
        try made.withLock { made in
            if let made { return try made.get() }
            let result = Result { () throws -> (folder: TemporaryDirectory, server: QdrantServer) in
                let folder = try TemporaryDirectory("blue")
                AtExit.remove(folder)
                try Fixture.run("cluster", folder("c"), "--nodes", "1", "--standalone", "--points", "200", "--dim", "16")
                let server = try QdrantServer(folder("c/node-0"))
                AtExit.run { server.stop() }
                return (folder, server)
            }
            made = result
            return try result.get()
        }
    }

    static var volume: String { get throws { try get().folder("c/node-0") } }
    static var url: String { get throws { try get().server.url } }

    /// A copy that a test may change.
    static func copy(to path: String) throws {
        let result = try Program.tool("cp", ["-a", "--sparse=always", try volume, path])
        guard result.status == 0 else { throw BackupError(.failed, result.errors) }
    }
}

/// A server that answers what a test says: for what no real one would.
final class FalseQdrant {
    let url: String
    private let process = Process()
    private let input = Pipe()
    private let folder: TemporaryDirectory

    /// Answers by path, from a JSON object; a path that is not there is passed on to `behind`, if given.
    private static let script = """
        import http.server, json, os, socketserver, sys, threading, urllib.request, urllib.error
        folder, behind = sys.argv[1:]
        answers = json.load(open(folder + "/answers"))
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, text, extra = 200, answers.get(self.path), {}
                if text is None and behind:
                    request = urllib.request.Request(behind + self.path, data=body or None, method=self.command)
                    request.add_header("content-type", "application/json")
                    try:
                        with urllib.request.urlopen(request) as reply: text = reply.read().decode()
                    except urllib.error.HTTPError as error: status, text = error.code, error.read().decode()
                elif text is None: status, text = 404, ""
                elif text.startswith("status "): status, text = int(text.split(" ", 2)[1]), text.split(" ", 2)[2]
                elif text.startswith("redirect "): status, extra, text = 307, {"Location": text[9:]}, ""
                elif text == "huge": return self.flood()
                elif text == "deep": text = '{"result":' + "[" * 100000 + "]" * 100000 + ',"status":"ok"}'
                elif text == "echo": status, text = 401, "no such key: " + (self.headers.get("api-key") or "")
                content = text.encode()
                self.send_response(status)
                for name, value in extra.items(): self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            def flood(self):
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                piece = b"100000\\r\\n" + b" " * 0x100000 + b"\\r\\n"
                for _ in range(200): self.wfile.write(piece)
            do_GET = do_POST = answer
            def log_message(self, *words): pass
        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = allow_reuse_address = True
            def handle_error(self, *words): pass
        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        open(folder + "/port.new", "w").write(str(server.server_address[1]))
        os.rename(folder + "/port.new", folder + "/port")
        sys.stdin.read()
        """

    init(_ answers: [String: String], behind: String = "") throws {
        folder = try TemporaryDirectory("false")
        try JSONSerialization.data(withJSONObject: answers).write(to: URL(filePath: folder("answers")))
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", Self.script, folder.path, behind]
        process.standardInput = input
        try process.run()
        var found: Int?
        while found == nil, process.isRunning {
            found = (try? String(contentsOfFile: folder("port"), encoding: .utf8)).flatMap { Int($0) }
            usleep(5000)
        }
        guard let found else { throw BackupError(.failed, "the false server did not start") }
        url = "http://127.0.0.1:\(found)"
    }

    deinit {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }
}
