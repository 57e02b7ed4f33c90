/// Work under way whose results are taken in the order in which it was added.
///
/// The holder keeps at most `width` pieces under way by taking a result before
/// it adds when `isFull`, so memory is bounded by width times piece.
public struct OrderedTasks<Output: Sendable> {
    public let width: Int
    private let executor: BlockingExecutor
    private var tasks: [Task<Output, any Error>] = []
    private var head = 0

    public init(width: Int, on executor: BlockingExecutor) {
        self.width = width
        self.executor = executor
    }

    public var count: Int { tasks.count - head }
    public var isFull: Bool { count >= width }

    public mutating func add(_ work: @escaping @Sendable () async throws -> Output) {
        tasks.append(Task(executorPreference: executor, operation: work))
    }

    /// The oldest result, or nil when nothing is under way. On an error all
    /// else is cancelled and waited for before the error is thrown.
    public mutating func next() async throws -> Output? {
        guard head < tasks.count else { return nil }
        let task = tasks[head]
        do {
            let result = try await withTaskCancellationHandler {
                try await task.value
            } onCancel: {
                task.cancel()
            }
            head += 1
            if head >= 64 {
                tasks.removeFirst(head)
                head = 0
            }
            return result
        } catch {
            await abandon()
            throw error
        }
    }

    /// Cancels and awaits everything under way: for leaving early.
    public mutating func abandon() async {
        let rest = tasks[min(head, tasks.count)...]
        tasks = []
        head = 0
        for task in rest { task.cancel() }
        for task in rest { _ = await task.result }
    }
}

/// Applies `transform` to up to `width` elements at once and hands the results
/// on in the order of the elements. It pulls: nothing starts before somebody
/// asks for a result.
public struct OrderedMap<Input: Sendable, Output: Sendable> {
    private var tasks: OrderedTasks<Output>
    private let upstream: () throws -> Input?
    private let transform: @Sendable (Input) async throws -> Output
    private var exhausted = false

    public init(
        width: Int, on executor: BlockingExecutor,
        from upstream: @escaping () throws -> Input?,
        transform: @escaping @Sendable (Input) async throws -> Output
    ) {
        tasks = OrderedTasks(width: width, on: executor)
        self.upstream = upstream
        self.transform = transform
    }

    /// The next result in order, or nil at the end. The first error cancels
    /// what is under way, waits for it, and is thrown.
    public mutating func next() async throws -> Output? {
        do {
            try fill()
        } catch {
            await abandon()
            throw error
        }
        return try await tasks.next()
    }

    public mutating func abandon() async {
        exhausted = true
        await tasks.abandon()
    }

    private mutating func fill() throws {
        while !exhausted, !tasks.isFull {
            try Task.checkCancellation()
            guard let input = try upstream() else {
                exhausted = true
                return
            }
            let transform = transform
            tasks.add { try await transform(input) }
        }
    }
}
