import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import NIOCore
import NIOHTTPTypes

/// Puts an answer on the wire, whole or cut, or drops the connection.
struct Delivery: Sendable {
    let store: Store
    let number: Int

    /// - Parameters:
    ///   - cutAt: send only so many bytes of the announced body, then close
    ///   - stall: seconds of silence before that close
    func send(
        _ answer: Answer, to request: HTTPRequest, _ writer: consuming ResponseWriter, _ channel: any Channel,
        cutAt: Int? = nil, stall: Double = 0
    ) async throws {
        let personality = store.state.withLock { $0.config.personality }
        let isControl = number == 0
        var answer = answer
        if !isControl { disguise(&answer, personality) }
        let hasBody = request.method != .head && answer.status != 204 && answer.status != 304
        let isChunked = personality.chunkedAnswers && !isControl && hasBody && cutAt == nil
        let closes =
            cutAt != nil || answer.errorCode == "EntityTooLarge" || (personality.closeAfterAnswer && !isControl)
        // A host that dies in the middle of a body has not said so before.
        if closes, cutAt == nil { answer.headers.append(("Connection", "close")) }
        if !isChunked, answer.status != 204, answer.status != 304 {
            answer.headers.append(("Content-Length", String(answer.announcedLength ?? answer.body.readableBytes)))
        }
        let head = responseHead(answer, uppercase: personality.headerCase && !isControl)
        if closes {
            var body = answer.body
            if let cutAt { body = body.readSlice(length: cutAt) ?? ByteBuffer() }
            try await channel.writeAndFlush(HTTPResponsePart.head(head)).get()
            if hasBody, body.readableBytes > 0 { try await channel.writeAndFlush(HTTPResponsePart.body(body)).get() }
            if cutAt == nil { try await channel.writeAndFlush(HTTPResponsePart.end(nil)).get() }
            if stall > 0 { try await Task.sleep(for: .seconds(stall)) }
            try? await channel.close().get()
            throw Exchange.Dropped()
        }
        if hasBody, let rate = personality.bytesPerSecond, !isControl {
            var trickle = try await writer.writeHead(head)
            var body = answer.body
            while let piece = body.readSlice(length: min(max(1, rate / 10), body.readableBytes)),
                piece.readableBytes > 0
            {
                try await trickle.write(piece)
                if body.readableBytes > 0 { try await Task.sleep(for: .milliseconds(100)) }
            }
            try await trickle.finish(nil)
        } else if hasBody {
            try await writer.write(response: head, body: ResponseBody(byteBuffer: answer.body))
        } else {
            try await writer.writeResponse(head)
        }
    }

    private func responseHead(_ answer: Answer, uppercase: Bool) -> HTTPResponse {
        var fields = HTTPFields()
        let common = [
            ("x-amz-request-id", Answer.requestID(number)), ("x-amz-id-2", "strict-s3"),
            ("Date", Timestamp.http(store.now)), ("Server", "StrictS3"),
        ]
        for (name, value) in common + answer.headers {
            guard let name = HTTPField.Name(uppercase ? name.uppercased() : name) else { continue }
            fields.append(HTTPField(name: name, value: value))
        }
        return HTTPResponse(status: .init(code: answer.status), headerFields: fields)
    }

    private func disguise(_ answer: inout Answer, _ personality: Personality) {
        if personality.htmlErrors, answer.status >= 500 {
            answer.headers.removeAll { $0.0 == "Content-Type" }
            answer.headers.append(("Content-Type", "text/html"))
            answer.body = ByteBuffer(
                string: "<html><head><title>\(answer.status)</title></head><body><hr>proxy</body></html>\r\n")
        } else if personality.prettyXML, answer.headers.contains(where: { $0.1 == "application/xml" }) {
            answer.body = ByteBuffer(string: XMLText.pretty(String(buffer: answer.body)))
        }
        if answer.status == 503, let seconds = personality.retryAfterSeconds {
            answer.headers.append(("Retry-After", String(seconds)))
        }
    }

    /// Closes with a reset rather than politely, as a dying host or a proxy does.
    func drop(_ channel: any Channel) async {
        if let options = channel as? any SocketOptionProvider {
            try? await options.setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
        }
        try? await channel.close().get()
    }
}
