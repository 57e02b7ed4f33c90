import BackupBase
import BackupRepository
import QdrantStorage
import VolumeIO

/// Who a restored node is to the others.
public enum RestoreIdentity: Sendable, Equatable {
    /// The very node that was backed up, with all that it knew: only where that one is gone for good.
    case kept
    /// Itself, and knowing nobody.
    case alone
    /// Part of a new cluster, where it has this address.
    case seeded(uri: String, isFirst: Bool)
}

extension RestoreRun {
    /// Makes the raft state harmless before the volume is anybody's: a node
    /// started on it as it was would call every peer of the cluster it came
    /// from (docs/blue-green.md). The original stays in the snapshot.
    /// - Throws: `.failed` where it is none that can be rewritten: nothing is handed over then
    func takeIdentity(_ tree: TargetTree) throws {
        guard options.identity != .kept else { return }
        guard let bytes = try tree.readSmallFile(RaftState.path, limit: JSONValue.sizeLimit) else {
            if let legacy = try tree.readSmallFile(RaftState.legacyPath, limit: JSONValue.sizeLimit), Self.mayHoldAddress(legacy)
            {
                throw Self.unreadable(RaftState.legacyPath, "in the format from before Qdrant 1.0")
            }
            return
        }
        guard let document = try? JSONValue(parsing: bytes), let state = RaftState(document) else {
            // What has no address calls nobody, whatever a later version makes of it.
            if Self.mayHoldAddress(bytes) { throw Self.unreadable(RaftState.path, "no raft state that this version knows") }
            return
        }
        let seeded: RaftState
        switch options.identity {
        case .kept: return
        case .alone: seeded = state.seeded(uri: nil, isFirst: false)
        case .seeded(let uri, let isFirst): seeded = state.seeded(uri: uri, isFirst: isFirst)
        }
        report.identity = Identity(peer: state.peer, removed: state.addresses.count)
        // A second raft state beside it is read by nobody, and still has blue's addresses.
        if try tree.readSmallFile(RaftState.legacyPath, limit: JSONValue.sizeLimit) != nil {
            try tree.writeSmallFile(RaftState.legacyPath, [])
        }
        if seeded != state { try tree.writeSmallFile(RaftState.path, try seeded.document.encoded) }
    }

    /// What a refresh must say again: it makes the raft state anew, and would
    /// take an address that the node was given from it.
    /// - Throws: `.usage`
    func requireIdentity() throws {
        guard options.identity == .alone,
            let bytes = try TargetTree(path: options.target, create: false)
                .readSmallFile(RaftState.path, limit: JSONValue.sizeLimit),
            let document = try? JSONValue(parsing: bytes), let state = RaftState(document),
            let own = state.addresses[state.peer]
        else { return }
        throw BackupError(
            .usage, "the node in \(options.target) has the address \(own), which a refresh without --seed would take from it",
            hint: "Give --seed (and --first-peer) or --keep-identity as the restore before had it.")
    }

    private static func mayHoldAddress(_ bytes: [UInt8]) -> Bool {
        String(decoding: bytes, as: UTF8.self).contains("://")
    }

    private static func unreadable(_ path: String, _ what: String) -> BackupError {
        BackupError(
            .failed, "\(path) of the snapshot is \(what): it cannot be made harmless, and the restore is not finished",
            hint: "Finish it as it is by --resume --keep-identity, and keep the node away from its old cluster's network.")
    }

    /// What was done to a node's identity.
    public struct Identity: Sendable {
        public let peer: UInt64
        /// Addresses that the raft state had, its own among them.
        public let removed: Int
    }
}
