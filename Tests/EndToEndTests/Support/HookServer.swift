import BackupBase
import Foundation
import TestSupport

/// A web server that notes down what it is told; gone with its last reference.
final class HookServer {
    enum Manner: String, CaseIterable {
        case well
        /// Takes the request and never answers.
        case hang
        case fail
        /// Points to another place.
        case redirect
    }

    struct Request {
        let path: String
        let agent: String
        let body: String
        var json: [String: Any] { (try? JSONSerialization.jsonObject(with: Data(body.utf8))) as? [String: Any] ?? [:] }
    }

    let port: Int
    private let process = Process()
    private let input = Pipe()
    private let folder: TemporaryDirectory

    private static let script = """
        import http.server, json, os, socketserver, sys, threading, time
        manner, folder = sys.argv[1:]
        lock = threading.Lock()
        class Web(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
                with lock, open(folder + "/requests", "a") as file:
                    file.write(json.dumps({"path": self.path, "agent": self.headers.get("user-agent", ""), "body": body}) + "\\n")
                if manner == "hang": time.sleep(3600)
                self.send_response({"well": 200, "fail": 500, "redirect": 302}[manner])
                if manner == "redirect": self.send_header("location", "/elsewhere")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"OK")
            do_GET = do_POST = answer
            def log_message(self, *words): pass
        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64
            def handle_error(self, *words): pass
        server = Server(("127.0.0.1", 0), Web)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        open(folder + "/port.new", "w").write(str(server.server_address[1]))
        os.rename(folder + "/port.new", folder + "/port")
        sys.stdin.read()
        """

    init(_ manner: Manner = .well) throws {
        folder = try TemporaryDirectory("hook")
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", Self.script, manner.rawValue, folder.path]
        process.standardInput = input
        try process.run()
        var found: Int?
        while found == nil, process.isRunning {
            found = (try? String(contentsOfFile: folder("port"), encoding: .utf8)).flatMap { Int($0) }
            usleep(5000)
        }
        guard let found else { throw BackupError(.failed, "the hook server did not start") }
        port = found
    }

    deinit {
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }

    /// An address with a secret in each part that can hold one.
    var url: String { "http://user:CANARY-pass@127.0.0.1:\(port)/CANARY-path" }

    /// In the order in which they came.
    var requests: [Request] {
        let text = (try? String(contentsOfFile: folder("requests"), encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap { line in
            guard let fields = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: String] else { return nil }
            return Request(path: fields["path"] ?? "", agent: fields["agent"] ?? "", body: fields["body"] ?? "")
        }
    }
}
