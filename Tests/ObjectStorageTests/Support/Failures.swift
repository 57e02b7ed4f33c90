import BackupBase
import Testing

@testable import ObjectStorage

/// The `StoreError` that `body` ends with, or nil where it succeeds.
func storeError(_ body: () async throws -> Void) async -> StoreError? {
    do {
        try await body()
        return nil
    } catch let error as StoreError {
        return error
    } catch {
        Issue.record("\(error) is no StoreError")
        return nil
    }
}

/// Calls `body` until it holds; for what another task or process does. False after a minute.
func eventually(_ body: () async throws -> Bool) async rethrows -> Bool {
    let end = monotonicSeconds() + 60
    while monotonicSeconds() < end {
        if try await body() { return true }
        try? await Task.sleep(for: .milliseconds(5))
    }
    return false
}

extension StoreError {
    /// All that a person gets to see of it.
    var whole: String { "\(kind): \(self). \(hint ?? "")" }
}
