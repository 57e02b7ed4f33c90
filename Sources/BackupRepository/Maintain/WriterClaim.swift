import BackupBase
import FoundationEssentials
import ObjectStorage

/// One writer per prefix, for stores whose conditional writes do not hold:
/// no lease is worth anything there, so there is nobody to share with.
///
/// A writer puts its claim first and looks for others second. Two that come at
/// once both see both, and both withdraw; who finds another's claim gives way.
public struct WriterIdentity: Sendable {
    /// 32 hexadecimal digits that this node keeps.
    public let id: String
    /// For people.
    public let node: String
    /// A file of this node's, locked while one of its processes takes things
    /// away; nil where there is no such place.
    public let lockPath: String?

    public init(id: String, node: String, lockPath: String? = nil) {
        self.id = id
        self.node = node
        self.lockPath = lockPath
    }
}

extension Repository {
    static let claimPrefix = "v1/writers/"

    private struct Claim: Codable {
        var format = 1
        var node: String
        var since: String
    }

    /// Whether several writers can share this store.
    public var isShared: Bool {
        configuration.probe["conditionalCreate"] != "no" && configuration.probe["conditionalReplace"] != "no"
    }

    /// Makes sure that this node is the one that writes, where only one may.
    /// Throws `.busy` where another node is.
    func requireClaim() async throws {
        guard !isShared else { return }
        guard let identity else {
            throw BackupError(
                .busy, "the store at \(store.location) lets one node write, and this one cannot keep its identity",
                hint: "Set BGBACKUP_STATE_DIR to a directory that lasts.")
        }
        let name = Self.claimPrefix + identity.id
        guard try await store.info(name) == nil else { return try await refuseOthers(than: name) }
        do {
            try await put(Claim(node: identity.node, since: formatTime(ambient.now())), name)
            try await refuseOthers(than: name)
        } catch {
            // A claim that is left would shut the other node out as well.
            let store = store
            await Task { try? await store.delete(name) }.value
            throw error
        }
    }

    private func refuseOthers(than name: String) async throws {
        guard let other = try await store.list(Self.claimPrefix).first(where: { $0.name != name }) else { return }
        throw BackupError(
            .busy, "another node writes to \(store.location): \(await holder(of: other.name))",
            hint:
                "This store has no conditional writes, so one node writes to one prefix. Use another prefix, or 'bgbackup repo claim --take-over' once the other node is gone."
        )
    }

    /// Makes this node the writer, whoever was. The other must have stopped.
    /// - Returns: the nodes whose claims were taken away
    public func takeOverClaim() async throws -> [String] {
        guard let identity else { throw BackupError(.failed, "this node has no identity", hint: "Set BGBACKUP_STATE_DIR.") }
        let name = Self.claimPrefix + identity.id
        if try await store.info(name) == nil {
            try await put(Claim(node: identity.node, since: formatTime(ambient.now())), name)
        }
        var removed: [String] = []
        for other in try await store.list(Self.claimPrefix) where other.name != name {
            removed.append(await holder(of: other.name))
            try await store.delete(other.name)
        }
        return removed
    }

    /// The nodes that claim to write here.
    public func claims() async throws -> [String] {
        var nodes: [String] = []
        for info in try await store.list(Self.claimPrefix) { nodes.append(await holder(of: info.name)) }
        return nodes
    }

    private func put(_ claim: Claim, _ name: String) async throws {
        try await store.put(name, AlignedBuffer(copying: Array(try JSONEncoder().encode(claim))), ifAbsent: true)
    }

    private func holder(of name: String) async -> String {
        let bytes = try? await store.get(name, .all, limit: 4096).array
        let claim = bytes.flatMap { try? JSONDecoder().decode(Claim.self, from: Data($0)) }
        guard let claim else { return String(name.dropFirst(Self.claimPrefix.count).prefix(8)) }
        return "\(printable(claim.node.utf8.prefix(100))), since \(printable(claim.since.utf8.prefix(30)))"
    }
}
