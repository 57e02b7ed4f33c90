import BackupBase
import Testing

@testable import ObjectStorage

/// A clock that stands until it is moved.
private final class ManualClock: Sendable {
    private let seconds = Locked(1000.0)
    var now: Double { seconds.withLock { $0 } }
    func pass(_ interval: Double) { seconds.withLock { $0 += interval } }
}

@Suite struct FlowControlTests {
    private let clock = ManualClock()

    private func control(_ maximum: Int) -> FlowControl {
        let clock = clock
        return FlowControl(maximum: maximum, clock: { clock.now })
    }

    @Test func `no more run at once than the limit, and each that leaves lets one in`() async throws {
        let flow = control(3)
        let inside = Locked(0)
        let most = Locked(0)
        let done = await withTaskGroup(of: Void.self) { group in
            for _ in 0..<100 {
                group.addTask {
                    await flow.enter()
                    let now = inside.withLock {
                        $0 += 1
                        return $0
                    }
                    most.withLock { $0 = max($0, now) }
                    await Task.yield()
                    inside.withLock { $0 -= 1 }
                    flow.leave(overloaded: false)
                }
            }
            return await group.reduce(0) { count, _ in count + 1 }
        }
        #expect(done == 100)
        #expect(most.withLock { $0 } <= 3)
    }

    @Test func `a complaint halves, but not twice within half a second, and never below one`() async {
        let flow = control(8)
        var limits: [Int] = []
        for pause in [1, 0.3, 0.3, 0.6, 0.6, 0.6, 0.6] {
            clock.pass(pause)
            await flow.enter()
            flow.leave(overloaded: true)
            limits.append(flow.limit)
        }
        #expect(limits == [4, 4, 2, 1, 1, 1, 1])
    }

    @Test func `the very first complaint counts, also of a clock that begins at nought`() async {
        let flow = FlowControl(maximum: 8, clock: { 0 })
        await flow.enter()
        flow.leave(overloaded: true)
        #expect(flow.limit == 4)
    }

    @Test func `it grows again by one for each round of answers, up to the maximum`() async {
        let flow = control(8)
        for _ in 0..<3 {
            clock.pass(1)
            await flow.enter()
            flow.leave(overloaded: true)
        }
        #expect(flow.limit == 1)
        var answers: [Int] = []
        var count = 0
        while flow.limit < 8, count < 1000 {
            let before = flow.limit
            await flow.enter()
            flow.leave(overloaded: false)
            count += 1
            if flow.limit > before { answers.append(count) }
        }
        // 1 + 2 + 3 + … answers, about: a round of each limit.
        #expect(answers.count == 7)
        #expect((20...40).contains(count), "\(answers)")
        for _ in 0..<100 {
            await flow.enter()
            flow.leave(overloaded: false)
        }
        #expect(flow.limit == 8)
    }

    @Test func `who waits longest is let in first`() async throws {
        let flow = control(1)
        await flow.enter()
        let order = Locked<[Int]>([])
        var tasks: [Task<Void, Never>] = []
        for number in 0..<10 {
            let started = Locked(false)
            tasks.append(
                Task {
                    started.withLock { $0 = true }
                    await flow.enter()
                    order.withLock { $0.append(number) }
                    flow.leave(overloaded: false)
                })
            // The next one asks only when this one surely has.
            #expect(await eventually { started.withLock { $0 } })
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(order.withLock { $0 }.isEmpty)
        flow.leave(overloaded: false)
        for task in tasks { await task.value }
        #expect(order.withLock { $0 }.count == 10)
        #expect(order.withLock { $0 }.first == 0)
    }

    @Test func `those that are inside when it is halved are waited for`() async {
        let flow = control(4)
        for _ in 0..<4 { await flow.enter() }
        clock.pass(1)
        flow.leave(overloaded: true)
        #expect(flow.limit == 2)
        let entered = Locked(false)
        let task = Task {
            await flow.enter()
            entered.withLock { $0 = true }
            flow.leave(overloaded: false)
        }
        flow.leave(overloaded: true)
        try? await Task.sleep(for: .milliseconds(50))
        #expect(!entered.withLock { $0 }, "two are inside yet, and two may be")
        flow.leave(overloaded: true)
        await task.value
        flow.leave(overloaded: false)
    }

    // MARK: - Repetitions

    @Test func `repetitions are free while the stock lasts, then so many a second`() {
        let flow = control(8)
        #expect((0..<Int(FlowControl.stock)).allSatisfy { _ in flow.takeRetry() == 0 })
        #expect(abs(flow.takeRetry() - 1 / FlowControl.refill) < 1e-9)
        #expect(abs(flow.takeRetry() - 2 / FlowControl.refill) < 1e-9)
        clock.pass(0.2)
        #expect(abs(flow.takeRetry() - 1 / FlowControl.refill) < 1e-9)
    }

    @Test func `the stock fills up again, and no further`() {
        let flow = control(8)
        for _ in 0..<300 { _ = flow.takeRetry() }
        clock.pass(1e6)
        #expect((0..<Int(FlowControl.stock)).allSatisfy { _ in flow.takeRetry() == 0 })
        #expect(flow.takeRetry() > 0)
    }
}

@Suite struct RateLimiterTests {
    @Test func `bytes go one after the other at the rate`() {
        let limiter = RateLimiter(rate: 1000)
        #expect(limiter.delay(500, now: 10) == 0)
        #expect(limiter.delay(1000, now: 10) == 0.5)
        #expect(limiter.delay(1, now: 11) == 0.5)
        #expect(abs(limiter.delay(1, now: 11) - 0.501) < 1e-9)
    }

    @Test func `idle time is not saved up`() {
        let limiter = RateLimiter(rate: 1000)
        #expect(limiter.delay(1000, now: 0) == 0)
        #expect(limiter.delay(1000, now: 100) == 0)
        #expect(limiter.delay(1000, now: 100) == 1)
    }

    @Test func `what came is paid for by whoever is next`() {
        let limiter = RateLimiter(rate: 1000)
        #expect(limiter.debt(now: 0) == 0)
        _ = limiter.delay(500, now: 0)
        #expect(limiter.debt(now: 0) == 0.5 && limiter.debt(now: 0.2) == 0.3 && limiter.debt(now: 9) == 0)
        #expect(RateLimiter(rate: 0).debt(now: 0) == 0)
        let charged = RateLimiter(rate: 1)
        charged.charge(1000)
        #expect(charged.debt() > 900)
    }

    @Test func `no rate and no bytes mean no waiting`() {
        let free = RateLimiter(rate: 0)
        #expect((0..<100).allSatisfy { _ in free.delay(1 << 40, now: 0) == 0 })
        let limiter = RateLimiter(rate: 1)
        #expect((0..<100).allSatisfy { _ in limiter.delay(0, now: 0) == 0 })
        #expect(limiter.delay(5, now: 0) == 0)
    }
}
