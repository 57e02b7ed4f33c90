import CLinux
import Glibc

/// A pool of threads for tasks that block in system calls.
///
/// The cooperative pool is as wide as the cores and starves when its threads
/// wait for a disk; tasks that read, compress and write prefer this one
/// (SE-0417). With `background` the threads run under SCHED_IDLE, so that they
/// get only what a database on the same node leaves over.
public final class BlockingExecutor: TaskExecutor, @unchecked Sendable {
    // Unchecked: the queue is touched only with `mutex` held.
    private struct Queue {
        var jobs: [UnownedJob] = []
        var head = 0
    }
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let wake = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var queue = Queue()
    private let background: Bool

    /// Runs `body` at normal priority on a thread that may be in the background:
    /// while writes are held somebody waits for it.
    public static func atNormalPriority<Value>(_ body: () throws -> Value) rethrows -> Value {
        let wasIdle = bgb_is_sched_idle() != 0
        if wasIdle { _ = bgb_sched_normal() }
        defer { if wasIdle { _ = bgb_sched_idle() } }
        return try body()
    }

    /// Starts `threads` threads, which live as long as the process.
    public init(threads: Int, background: Bool = false) {
        self.background = background
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(wake, nil)
        for _ in 0..<max(threads, 1) { start() }
    }

    /// Without threads: jobs wait for `runUntilIdle`. For simulations, in which
    /// one seed gives one order of everything.
    public static func stepped() -> BlockingExecutor { BlockingExecutor() }

    private init() {
        background = false
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(wake, nil)
    }

    /// Runs the jobs that wait, and those that they make, on the calling thread, in order.
    public func runUntilIdle() {
        let executor = asUnownedTaskExecutor()
        while let job = takeNow() { job.runSynchronously(on: executor) }
    }

    private func takeNow() -> UnownedJob? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return queue.head == queue.jobs.count ? nil : pop()
    }

    public func enqueue(_ job: consuming ExecutorJob) {
        let unowned = UnownedJob(job)
        pthread_mutex_lock(mutex)
        queue.jobs.append(unowned)
        pthread_cond_signal(wake)
        pthread_mutex_unlock(mutex)
    }

    private func start() {
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(self).toOpaque()
        let status = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<BlockingExecutor>.fromOpaque(argument!).takeRetainedValue().work()
                return nil
            }, argument)
        precondition(status == 0, "cannot start a thread: errno \(status)")
        pthread_detach(thread)
    }

    private func work() {
        if background {
            // Best effort: a refusal leaves the thread at normal priority.
            _ = bgb_sched_idle()
            _ = bgb_ioprio_idle()
        }
        let executor = asUnownedTaskExecutor()
        while true { take().runSynchronously(on: executor) }
    }

    private func take() -> UnownedJob {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while queue.head == queue.jobs.count { pthread_cond_wait(wake, mutex) }
        return pop()
    }

    /// With the lock held, of a queue that is not empty.
    private func pop() -> UnownedJob {
        let job = queue.jobs[queue.head]
        queue.head += 1
        if queue.head == queue.jobs.count {
            queue.jobs.removeAll(keepingCapacity: true)
            queue.head = 0
        }
        return job
    }
}
