import BackupBase

/// Finds out what a store really does, whatever it answers: `init` records it.
public enum StoreProbe {
    /// Writes, reads, refuses to overwrite, lists and deletes a small object
    /// below `tmp/`. Throws where the store cannot hold a repository.
    public static func run(_ store: any ObjectStore, ambient: Ambient = .system) async throws -> [String: String] {
        let name = "tmp/probe-\(ambient.random(8).hex)"
        let first = AlignedBuffer(copying: ambient.random(4096))
        let second = AlignedBuffer(copying: ambient.random(4096))
        try await store.put(name, first, ifAbsent: true)
        var refused = false
        do {
            try await store.put(name, second, ifAbsent: true)
        } catch let error as StoreError where error.kind == .exists {
            refused = true
        }
        // A refusal counts only if the object is still the first one.
        let back = try await store.get(name, .all, limit: 1 << 20).array
        let part = try await store.get(name, .from(1000, count: 96), limit: 96).array
        let listed = try await store.list("tmp/").contains { $0.name == name && $0.size == 4096 }
        try await store.delete(name)
        guard back == Array(first.bytes) || !refused else {
            throw StoreError(.failed, "probe", store.location, "it does not return what was written")
        }
        guard listed, part == Array(back[1000..<1096]) else {
            throw StoreError(.failed, "probe", store.location, "listing or ranged reads do not work")
        }
        return [
            "conditionalCreate": refused && back == Array(first.bytes) ? "yes" : "no",
            "probed": formatTime(ambient.now()),
        ]
    }
}
