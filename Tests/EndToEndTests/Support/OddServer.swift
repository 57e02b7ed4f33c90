import BackupBase
import Foundation
import TestSupport

/// A server that is not what one expects behind an endpoint.
final class OddServer {
    enum Manner: String {
        /// Accepts, and says nothing.
        case silent
        /// Greets as a mail server does, and hangs up.
        case mail
        /// A web server: 404 and a page, whatever is asked.
        case web
        /// Everything stored is too much.
        case full
        /// Every key has expired.
        case expired
        /// TLS with a certificate of its own making.
        case tls
    }

    private let port: Int
    private let process = Process()
    private let input = Pipe()
    private let folder: TemporaryDirectory

    private static let script = """
        import http.server, socketserver, ssl, sys, threading, time
        manner, file, folder = sys.argv[1:]
        class Plain(socketserver.BaseRequestHandler):
            def handle(self):
                if manner == "mail":
                    self.request.sendall(b"220 mail.example ESMTP\\r\\n")
                else:
                    time.sleep(3600)
        class Web(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def answer(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                full = b"<Error><Code>QuotaExceeded</Code><Message>The quota of the bucket is used up</Message></Error>"
                late = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired</Message></Error>"
                body = full if manner == "full" else late if manner == "expired" else b"<html><body><h1>It works!</h1></body></html>"
                self.send_response(507 if manner == "full" else 400 if manner == "expired" else 404)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD": self.wfile.write(body)
            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer
            def log_message(self, *words): pass
        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            def handle_error(self, *words): pass
        server = Server(("127.0.0.1", 0), Plain if manner in ("mail", "silent") else Web)
        if manner == "tls":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(folder + "/certificate", folder + "/key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        open(file + ".new", "w").write(str(server.server_address[1]))
        import os
        os.rename(file + ".new", file)
        sys.stdin.read()
        """

    /// Calls `body` with its port, and ends it.
    static func with<Result>(_ manner: Manner, _ body: (Int) throws -> Result) throws -> Result {
        let server = try OddServer(manner)
        return try withExtendedLifetime(server) { try body(server.port) }
    }

    private init(_ manner: Manner) throws {
        folder = try TemporaryDirectory("odd")
        if manner == .tls {
            let made = try Program.tool(
                "openssl",
                [
                    "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout",
                    folder("key"),
                    "-out", folder("certificate"), "-addext", "subjectAltName=IP:127.0.0.1",
                ])
            guard made.status == 0 else { throw BackupError(.failed, made.errors) }
        }
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", Self.script, manner.rawValue, folder("port"), folder.path]
        process.standardInput = input
        try process.run()
        var found: Int?
        while found == nil, process.isRunning {
            found = (try? String(contentsOfFile: folder("port"), encoding: .utf8)).flatMap { Int($0) }
            usleep(5000)
        }
        guard let found else { throw BackupError(.failed, "the odd server did not start") }
        port = found
    }

    deinit {
        // Not by a signal: a child of a thread that blocks it has it blocked too.
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }
}
