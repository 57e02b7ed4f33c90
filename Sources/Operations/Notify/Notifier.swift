import BackupBase
import ObjectStorage

/// Tells whoever a policy names how a run goes. It never fails a run and never holds one up for longer than `bound`:
/// what cannot be told in that time is a word on standard error.
public final class Notifier: Sendable {
    /// Whom to tell.
    public struct Targets: Sendable {
        public struct Webhook: Sendable {
            public let url: SecretText
            public let events: Set<Announcement.Event>
            public let sendsLogs: Bool

            public init(url: SecretText, events: Set<Announcement.Event>, sendsLogs: Bool) {
                (self.url, self.events, self.sendsLogs) = (url, events, sendsLogs)
            }
        }

        /// Address of a check, to which `/start` and `/STATUS` are appended.
        public var check: SecretText?
        public var checkGetsLogs = false
        public var webhooks: [Webhook] = []

        public init() {}

        public var isEmpty: Bool { check == nil && webhooks.isEmpty }
    }

    /// Seconds for all that is told at the end of a run; and of one that a signal ends, which has 8 (SignalWatch).
    public static let bound = 10.0
    public static let boundOfStopped = 3.0

    private let targets: Targets
    private let agent: String
    private let tell: @Sendable (String) -> Void
    /// Names the run: a start and an end belong together.
    private let run: String
    private let starting: Task<Void, Never>?

    /// The run begins: the check is told beside it.
    /// - Parameters:
    ///   - isEndless: whether it has no end to be waited for: a watch, which tells now and then that it works
    ///   - tell: gets whatever could not be told
    public init(
        _ targets: Targets, agent: String, isEndless: Bool = false, ambient: Ambient = .system,
        tell: @escaping @Sendable (String) -> Void
    ) {
        self.targets = targets
        self.agent = agent
        self.tell = tell
        let run = Self.uuid(ambient.random(16))
        self.run = run
        starting = (isEndless ? nil : targets.check).map { check in
            Task {
                _ = await Self.post(
                    Self.address(check, "start", run), [], "text/plain", agent, Self.bound, "healthchecks", tell)
            }
        }
    }

    /// The run ended: tells all at once, and waits for them.
    /// - Parameters:
    ///   - events: of the run, the most telling first; each webhook is told of the first it listens to
    ///   - changes: what became wrong or right beside it
    ///   - problems: what is wrong with the policy now
    /// - Returns: whether somebody was told of each change, or nobody wants to be
    public func end(
        _ record: RunRecord, events: [Announcement.Event], changes: [(Announcement.Event, [Problem])], problems: [Problem]
    ) async -> Bool {
        let bound = record.outcome == .interrupted ? Self.boundOfStopped : Self.bound
        let (targets, agent, tell, run, starting) = (targets, agent, tell, run, starting)
        // Not the run's task: that may have been cancelled.
        return await Task {
            await withTaskGroup(of: (change: Int, isTold: Bool)?.self) { group in
                if let check = targets.check {
                    group.addTask {
                        let clock = monotonicSeconds()
                        if let starting { await Self.wait(for: starting, bound) }
                        let left = bound - (monotonicSeconds() - clock)
                        _ = await Self.post(
                            Self.address(check, Self.word(record), run), Self.summary(record, targets.checkGetsLogs),
                            "text/plain",
                            agent, max(left, 0.5), "healthchecks", tell)
                        return nil
                    }
                }
                for (index, hook) in targets.webhooks.enumerated() {
                    func add(_ event: Announcement.Event, _ told: [Problem], change: Int?) {
                        let message = Announcement(event, record, problems: told, sendLogs: hook.sendsLogs).json
                        group.addTask {
                            let isTold = await Self.post(
                                hook.url, message, "application/json", agent, bound, "webhook \(index + 1)", tell)
                            return change.map { ($0, isTold) }
                        }
                    }
                    if let event = events.first(where: { hook.events.contains($0) }) { add(event, problems, change: nil) }
                    for (number, change) in changes.enumerated() where hook.events.contains(change.0) {
                        add(change.0, change.1, change: number)
                    }
                }
                // One that never answers does not have the others told again at each run.
                var told: [Int: Bool] = [:]
                for await result in group {
                    if let result { told[result.change] = result.isTold || told[result.change] == true }
                }
                return told.values.allSatisfy { $0 }
            }
        }.value
    }

    /// Tells the check that a run without an end works, without waiting for it.
    public func beat(_ record: RunRecord) {
        guard let check = targets.check else { return }
        let (agent, tell, run, body) = (agent, tell, run, Self.summary(record, false))
        Task { _ = await Self.post(Self.address(check, "0", run), body, "text/plain", agent, Self.bound, "healthchecks", tell) }
    }

    private static func post(
        _ url: SecretText, _ body: [UInt8], _ type: String, _ agent: String, _ seconds: Double, _ name: String,
        _ tell: @Sendable (String) -> Void
    ) async -> Bool {
        do {
            try await ShortRequest.post(url, body, type: type, agent: agent, within: seconds)
            return true
        } catch {
            tell("\(name) is not told: \(error)")
            return false
        }
    }

    /// Waits, but no longer than this.
    private static func wait(for task: Task<Void, Never>, _ seconds: Double) async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await task.value }
            group.addTask {
                try? await Task.sleep(for: .seconds(seconds))
                // Over, or too late.
                task.cancel()
            }
            await group.next()
            group.cancelAll()
        }
    }

    /// What a check is told: the exit status (of one that left damage standing, that of damage), and of what came to nothing only a note.
    static func word(_ record: RunRecord) -> String {
        switch record.outcome {
        case .busy, .interrupted, .running: "log"
        case _ where record.isDone && record.standingDamages ?? 0 > 0: "\(BackupError.Code.damaged.exitStatus)"
        case .success, .warning, .failure, .killed: "\(record.exitStatus ?? 137)"
        }
    }

    /// One line, without words of errors unless they are wanted.
    static func summary(_ record: RunRecord, _ sendsLogs: Bool) -> [UInt8] {
        var line = "\(record.kind.rawValue)\(record.policy.map { " \($0)" } ?? ""): \(record.outcome.rawValue)"
        if let code = record.errorCode { line += ", \(code)" }
        if let seconds = record.durationSeconds { line += ", \(formatDuration(seconds))" }
        if let stored = record.figures.bytesStored { line += ", \(formatBytes(stored)) stored" }
        if sendsLogs, let message = record.errorMessage { line += "\n\(message)" }
        return Array("\(line)\n".utf8)
    }

    /// "https://hc-ping.com/UUID" → "https://hc-ping.com/UUID/start?rid=…"
    static func address(_ check: SecretText, _ word: String, _ run: String) -> SecretText {
        let text = check.reveal()
        let query = text.firstIndex(of: "?")
        var path = query.map { String(text[..<$0]) } ?? text
        while path.hasSuffix("/") { path.removeLast() }
        let rest = query.map { "&" + text[text.index(after: $0)...] } ?? ""
        return SecretText("\(path)/\(word)?rid=\(run)\(rest)")
    }

    private static func uuid(_ random: [UInt8]) -> String {
        var bytes = random
        // Version 4, variant 1 (RFC 9562).
        bytes[6] = bytes[6] & 0x0f | 0x40
        bytes[8] = bytes[8] & 0x3f | 0x80
        let digits = bytes.hex
        let cuts = [0..<8, 8..<12, 12..<16, 16..<20, 20..<32]
        return cuts.map { range in String(digits.dropFirst(range.lowerBound).prefix(range.count)) }.joined(separator: "-")
    }
}
