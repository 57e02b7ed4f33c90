import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdCore
import NIOCore

/// The way of one request: number, fault, body, judgement, answer.
struct Exchange: Sendable {
    /// What becomes of the connection.
    enum Outcome: Sendable {
        case answer(Answer, cutAt: Int?, stall: Double = 0)
        case drop
    }

    /// Thrown so that the server gives the connection up.
    struct Dropped: Error {}

    let store: Store

    func respond(_ request: Request, _ writer: consuming ResponseWriter, _ channel: any Channel) async throws {
        let head = request.head
        if (head.path ?? "").hasPrefix(Control.prefix) {
            let reader = BodyReader(length: contentLength(head) ?? 0, wantsMD5: false)
            let (body, _) = try await reader.read(request.body)
            let answer = Control(store: store).answer(head, body: body)
            return try await Delivery(store: store, number: 0).send(answer, to: head, writer, channel)
        }
        let ticket = store.journal.withLock { $0.begin(head) }
        var note = Journal.Entry(
            number: ticket.number, operation: "", method: "", path: "", query: "", headers: [:])
        let outcome: Outcome
        do {
            outcome = try await outcomeOf(request, ticket, writer, &note)
        } catch {
            // The client went away, or sent less than it announced: nothing was stored.
            note.fault = note.fault ?? "clientGone"
            end(ticket, note, status: 0)
            throw error
        }
        let delivery = Delivery(store: store, number: ticket.number)
        switch outcome {
        case .drop:
            end(ticket, note, status: 0)
            await delivery.drop(channel)
            throw Dropped()
        case .answer(let answer, let cutAt, let stall):
            note.bytesOut = cutAt ?? answer.body.readableBytes
            note.error = answer.errorCode
            end(ticket, note, status: answer.status)
            try await delivery.send(answer, to: head, writer, channel, cutAt: cutAt, stall: stall)
        }
    }

    private func end(_ ticket: Journal.Ticket, _ note: Journal.Entry, status: Int) {
        store.journal.withLock {
            $0.end(ticket) { entry in
                entry.operation = note.operation
                entry.status = status
                entry.error = note.error
                entry.fault = note.fault
                entry.bytesIn = note.bytesIn
                entry.bytesOut = note.bytesOut
            }
        }
    }

    private func contentLength(_ head: HTTPRequest) -> Int? {
        head.headerFields[.contentLength].flatMap { Int($0) }
    }

    private func outcomeOf(
        _ http: Request, _ ticket: Journal.Ticket, _ writer: borrowing ResponseWriter, _ note: inout Journal.Entry
    ) async throws -> Outcome {
        let number = ticket.number
        let (config, buckets) = store.state.withLock { ($0.config, Array($0.buckets.keys)) }
        var request: S3Request?
        var operation: Operation?
        var refusal: S3Error?
        do {
            let parsed = try S3Request(
                http.head, number: number, knownBuckets: buckets, personality: config.personality)
            request = parsed
            operation = try Operation.route(parsed)
        } catch let error as S3Error {
            refusal = error
        }
        note.operation = operation?.rawValue ?? "Unknown"
        let fault = config.faults.fault(
            number: number, operation: operation, isConditional: request?.isConditional ?? false)
        note.fault = fault?.rawValue

        let length = contentLength(http.head)
        if http.head.headerFields[.expect]?.lowercased() == "100-continue", fault != .dropBefore {
            try await writer.writeInformationalHead(HTTPResponse(status: .continue))
        }
        if fault == .dropBefore || fault == .resetBefore {
            let half = (length ?? 0) / 2
            let reader = BodyReader(length: half, wantsMD5: false)
            if half > 0 { _ = try await reader.read(http.body, upTo: half) }
            return .drop
        }
        if length == nil, http.head.headerFields[.transferEncoding] != nil {
            refusal = S3Error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        }
        if length ?? 0 > BodyReader.limit {
            let error = S3Error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
            return .answer(Answer(error, request: request, number: number), cutAt: nil)
        }
        let reader = BodyReader(length: length ?? 0, wantsMD5: wantsMD5(request, config.personality))
        let (body, digests) = try await reader.read(http.body)
        note.bytesIn = body.readableBytes
        request?.body = body
        request?.digests = digests

        let hangsBefore = fault == .hang && config.faults.chance(number, "before") < 0.5
        if hangsBefore { return try await hang(config) }
        var answer: Answer
        do {
            switch fault {
            case _ where ticket.running > config.personality.maxConcurrent ?? .max:
                note.fault = "maxConcurrent"
                throw S3Error.slowDown
            case .error503, .burst503: throw S3Error.slowDown
            case .error500: throw S3Error.internalError
            case .conflict409: throw S3Error.conflict
            default: break
            }
            guard refusal == nil, let request, let operation else { throw refusal ?? S3Error.internalError }
            answer = try serve(request, operation, fault, config.faults)
        } catch {
            answer = Answer(error as? S3Error ?? S3Error.internalError, request: request, number: number)
        }
        if config.personality.corruptBody, operation == .getObject, answer.status < 300, answer.body.readableBytes > 0 {
            let size = answer.body.readableBytes
            answer.body.flipByte(at: Int(config.faults.chance(number, "corrupt") * Double(size)))
        }
        if config.personality.delayMilliseconds > 0 {
            try await Task.sleep(for: .milliseconds(config.personality.delayMilliseconds))
        }
        switch fault {
        case .hang: return try await hang(config)
        case .resetAfter, .dropAfter: return .drop
        case .shortBody where http.method != .head && answer.body.readableBytes > 0:
            let size = answer.body.readableBytes
            return .answer(answer, cutAt: Int(config.faults.chance(number, "cut") * Double(size)))
        case .stallBody where http.method != .head && answer.body.readableBytes > 0:
            let cut = Int(config.faults.chance(number, "cut") * Double(answer.body.readableBytes))
            return .answer(answer, cutAt: cut, stall: config.faults.hangSeconds)
        case .shortBody, .stallBody:
            // There was nothing to cut.
            note.fault = nil
            return .answer(answer, cutAt: nil)
        default: return .answer(answer, cutAt: nil)
        }
    }

    private func hang(_ config: Config) async throws -> Outcome {
        try await Task.sleep(for: .seconds(config.faults.hangSeconds))
        return .drop
    }

    /// ETags of objects and parts are MD5s, unless the encryption or the personality hides them.
    private func wantsMD5(_ request: S3Request?, _ personality: Personality) -> Bool {
        guard let request else { return false }
        if request.header("content-md5") != nil { return true }
        let prefix = "x-amz-server-side-encryption"
        let hidden =
            request.header(prefix + "-customer-key") != nil || request.header(prefix)?.hasPrefix("aws:kms") ?? false
        return request.method == "PUT" && request.key != nil && !personality.opaqueETag && !hidden
    }

    private func serve(
        _ request: S3Request, _ operation: Operation, _ fault: Fault?, _ faults: FaultPlan
    ) throws -> Answer {
        var request = request
        let now = store.now
        if operation == .securityToken {
            return store.state.withLock { SecurityTokenService.answer(request, state: &$0, now: now) }
        }
        let identity = try store.state.withLock { try $0.authenticate(request, service: "s3", now: now) }
        // Outside the lock, for it may read the whole body once more.
        request.checksum = try Checksum.verified(in: request)
        let slows = fault == .slowDownIn200
        if slows, operation == .completeMultipartUpload {
            var answer = Answer(S3Error.slowDown, request: request, number: request.number)
            answer.status = 200
            return answer
        }
        let number = request.number
        return try store.state.withLock { [request] state in
            try state.serve(operation, request, identity, now: now) { index in
                slows && faults.chance(number, "key\(index)") < 0.5
            }
        }
    }
}
