import Foundation
import Synchronization

/// The shared state and the journal, each under its lock.
final class Store: Sendable {
    let state: Mutex<StoreState>
    let journal = Mutex(Journal())

    init(_ patch: JSONValue) throws {
        state = Mutex(try StoreState(patch))
    }

    /// The server's clock, which a test may shift.
    var now: Date { Date().addingTimeInterval(state.withLock { $0.config.personality.clockSkewSeconds }) }
}
