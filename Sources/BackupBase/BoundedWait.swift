/// Waits for what may hang in a system call, such as a look at a file of an NFS server that is gone.
public enum BoundedWait {
    /// What `body` comes to, on a thread of its own; nil after so many seconds. It is cancelled then and left to itself: a
    /// task group would wait for it.
    public static func value<Value: Sendable>(
        within seconds: Double, _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value? {
        let executor = BlockingExecutor(threads: 1)
        return try await withCheckedThrowingContinuation { continuation in
            let waiting = Locked<CheckedContinuation<Value?, any Error>?>(continuation)
            @Sendable func end(_ result: Result<Value?, any Error>) {
                let first = waiting.withLock { waiting in
                    defer { waiting = nil }
                    return waiting
                }
                first?.resume(with: result)
            }
            let work = Task(executorPreference: executor) {
                do { end(.success(try await body())) } catch { end(.failure(error)) }
            }
            Task {
                try? await Task.sleep(for: .seconds(seconds))
                work.cancel()
                end(.success(nil))
            }
        }
    }
}
