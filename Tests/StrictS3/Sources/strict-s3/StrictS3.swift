import Foundation
import HummingbirdCore
import Logging
import NIOCore
import NIOPosix

@main
struct StrictS3 {
    static func main() async {
        let arguments: Arguments
        do {
            arguments = try Arguments(CommandLine.arguments.dropFirst())
        } catch {
            complain("\((error as? Arguments.Wrong)?.description ?? "\(error)")\n\(Arguments.usage)")
            exit(2)
        }
        do {
            try await run(arguments)
        } catch {
            complain("\(error)")
            exit(1)
        }
    }

    private static func run(_ arguments: Arguments) async throws {
        signal(SIGPIPE, SIG_IGN)
        // Nothing outlives the process, so there is nothing to wind up.
        signal(SIGTERM) { _ in _exit(0) }
        signal(SIGINT) { _ in _exit(0) }
        var patch = JSONValue.object([:])
        if let file = arguments.config { patch = try JSONValue(parsing: Data(contentsOf: URL(filePath: file))) }
        let store = try Store(patch)
        let exchange = Exchange(store: store)
        let server = Server(
            childChannelSetup: HTTP1Channel(
                responder: { try await exchange.respond($0, $1, $2) },
                configuration: .init(additionalChannelHandlers: [ConnectionCounter(store: store)])),
            configuration: ServerConfiguration(address: .hostname("127.0.0.1", port: arguments.port), backlog: 1024),
            onServerRunning: { channel in
                do {
                    try announce(channel.localAddress?.port ?? 0, arguments)
                } catch {
                    complain("\(error)")
                    exit(1)
                }
            },
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
            logger: Logger(label: "strict-s3", factory: { _ in SwiftLogNoOpLogHandler() }))
        if arguments.untilEOF { exitAtEndOfInput() }
        try await server.run()
    }

    /// Aside and renamed, so that a waiting test never reads half a number.
    private static func announce(_ port: Int, _ arguments: Arguments) throws {
        if let file = arguments.portFile {
            try Data("\(port)\n".utf8).write(to: URL(filePath: file), options: .atomic)
        }
        if !arguments.isQuiet { print("strict-s3 listens on 127.0.0.1:\(port)") }
    }

    private static func exitAtEndOfInput() {
        Thread.detachNewThread {
            var byte: UInt8 = 0
            while true {
                let count = read(0, &byte, 1)
                if count == 0 || (count < 0 && errno != EINTR) { _exit(0) }
            }
        }
    }

    private static func complain(_ message: String) {
        FileHandle.standardError.write(Data("strict-s3: \(message)\n".utf8))
    }
}
