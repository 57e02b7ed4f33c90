import BackupBase
import Crypto
import FoundationEssentials
import ObjectStorage

/// All keys of a repository under a password, to be kept outside of it: with it
/// a repository opens whose key slots are lost, or its configuration.
public struct KeyExport: Codable, Sendable {
    var format = 1
    var kind = "bgbackup-key-export"
    /// 32 hexadecimal digits.
    public var repository: String
    /// Where it was, without secrets; for people.
    public var location: String
    /// Sealed under a name that no slot in a store has.
    var slot: KeySlot

    static let slotID = [UInt8](repeating: 0, count: 8)
    /// A sheet lies about for years: a guess costs four times what it costs at a slot, 128 MiB and half a second.
    static let strength = 4
    public static let sizeLimit = 64 << 10

    public var created: String { slot.created }
    public var generation: Int { slot.generation }

    /// - Parameters:
    ///   - location: without user and secrets
    ///   - by: who made it, on which host
    public init(_ ring: KeyRing, password: [UInt8], location: String, by: String?, ambient: Ambient = .system) throws {
        repository = "\(ring.repository)"
        self.location = location
        // Without a pair of which the repository does not speak yet: it may come to speak of another.
        slot = try KeySlot.make(
            ring.upTo(ring.generation), password: password, slot: Self.slotID, label: "export", by: by, strength: Self.strength,
            ambient: ambient)
    }

    init(repository: ObjectID, slot: KeySlot) {
        (self.repository, location, self.slot) = ("\(repository)", "", slot)
    }

    public var bytes: [UInt8] {
        get throws {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
            return Array(try encoder.encode(self)) + [0x0a]
        }
    }

    /// Throws `.usage` for what is no export.
    public init(parsing bytes: [UInt8]) throws {
        guard bytes.count <= Self.sizeLimit, let export = try? JSONDecoder().decode(Self.self, from: Data(bytes)),
            export.kind == "bgbackup-key-export", export.format == 1, ObjectID(hex: export.repository) != nil
        else {
            throw BackupError(
                .usage, "this is no exported key",
                hint: "Make one with 'bgbackup key export'; a typed sheet is read with --sheet.")
        }
        self = export
    }

    /// Throws `.wrongPassword`, and `.damaged` for an export whose fields are none.
    public func open(password: [UInt8]) throws -> KeyRing {
        do {
            guard let id = ObjectID(hex: repository) else { throw FormatError("it names no repository") }
            if let ring = try slot.open(password: password, repository: id, slot: Self.slotID) { return ring }
        } catch let error as FormatError {
            throw BackupError(.damaged, "the exported key cannot be used", cause: error)
        }
        throw BackupError(
            .wrongPassword, "the exported key does not open with this password",
            hint: "It opens with the password that it was exported with, whatever became of the repository's since.")
    }
}

extension KeyRing {
    /// What two people compare to know that they speak of the same keys: 16 digits of a hash of id and public key.
    public var fingerprint: String { Self.fingerprint(of: Array(publicKey.rawRepresentation), in: repository) }

    /// That of one of its pairs; nil for a pair that it does not have.
    func fingerprint(of generation: Int) -> String? {
        pair(generation).map { Self.fingerprint(of: Array($0.publicKey.rawRepresentation), in: repository) }
    }

    static func fingerprint(of publicKey: [UInt8], in repository: ObjectID) -> String {
        let digits = Array(PairClosing.digest(repository.bytes + publicKey).prefix(16))
        return stride(from: 0, to: 16, by: 4).map { String(digits[$0..<$0 + 4]) }.joined(separator: "-")
    }
}

extension Repository {
    /// Makes a key slot from exported keys, and the configuration where none is left.
    /// - Parameters:
    ///   - ring: what the export held
    ///   - password: opens the new slot
    ///   - force: write a configuration also with keys from before a rotation
    ///   - probe: finds out about the store; called where a configuration has to be written
    /// - Returns: the new slot's id, and the repository, opened with it
    public static func importKeys(
        _ ring: KeyRing, store: any ObjectStore, password: [UInt8], label: String, by: String?, force: Bool = false,
        executor: BlockingExecutor, ambient: Ambient = .system, identity: WriterIdentity? = nil,
        probe: () async throws -> [String: String]
    ) async throws -> (slot: String, repository: Repository) {
        var candidates: [UnverifiedConfiguration] = []
        do { candidates = try await configurations(store) } catch let error as BackupError
            where [.noRepository, .damaged].contains(error.code)
        {
            guard try await hasObjects(store) else { throw error }
        }
        guard candidates.isEmpty || candidates.contains(where: { $0.id == ring.repository }) else {
            throw BackupError(
                .wrongPassword, "the exported key is of repository \(ring.repository), and at \(store.location) is another",
                hint: "Check --repository.")
        }
        let genuine = try await counting(candidates, for: ring, store)
        var configuration = genuine?.configuration
        if configuration == nil {
            if !force { try await requireNewest(ring, candidates, store) }
            configuration = Configuration(
                repository: "\(ring.repository)", created: formatTime(ambient.now()),
                publicKey: ring.publicKeyText, probe: try await probe())
            if ring.generation > 1 { configuration = configuration?.rotated(to: ring, at: ambient.now()) }
        }
        let repository = Repository(
            store: store, keys: ring, configuration: configuration!, executor: executor, ambient: ambient, identity: identity)
        // The slot first, as ever: a configuration alone opens nothing.
        let slot = try await repository.writeSlot(ring, password, label, by).hex
        if genuine == nil {
            let bytes = AlignedBuffer(copying: try configuration!.encoded(ring))
            for name in Configuration.names { try await store.put(name, bytes, ifAbsent: false) }
        }
        return (slot, try await open(store: store, password: password, executor: executor, ambient: ambient, identity: identity))
    }

    /// Nothing may speak of a newer key pair: with the configuration that these keys make, what is new would be sealed
    /// for the pair that a rotation took out of use. Throws `.wrongPassword`.
    private static func requireNewest(
        _ ring: KeyRing, _ candidates: [UnverifiedConfiguration], _ store: any ObjectStore
    ) async throws {
        let slots = try await slots(store).map(\.slot)
        let other = candidates.first { copy in
            slots.contains(where: copy.isNamed) && copy.configuration.publicKey != ring.publicKeyText
        }
        var newest = max(slots.map(\.generation).max() ?? 1, other?.generation ?? 1)
        for info in try await store.list(PairClosing.prefix) {
            guard let number = Int(info.name.dropFirst(PairClosing.prefix.count).prefix { $0 != "." }) else { continue }
            newest = max(newest, min(number, KeyPair.most - 1) + 1)
        }
        let names = try await store.list(SnapshotName.prefix).compactMap { SnapshotName(object: $0.name) }.sorted()
        for name in names.reversed() where newest <= ring.generation {
            let head = ByteRange.from(0, count: ObjectHeader.size)
            let bytes = try await store.get(name.object, head, limit: ObjectHeader.size).array
            newest = max(newest, (try? ObjectHeader(parsing: bytes, expecting: .snapshot, name.id))?.generation ?? 1)
        }
        guard newest > ring.generation || other != nil else { return }
        throw BackupError(
            .wrongPassword,
            "the exported keys are of key pair \(ring.generation), and the repository at \(store.location), which lost its"
                + " configuration, has had \(newest > ring.generation ? "pair \(newest)" : "another pair of this number")",
            hint: "Import an export from after the rotation. Where there is none, --force brings the old pair back: what is"
                + " sealed for a newer one is then not readable, and who has old keys can make snapshots again.")
    }

    /// Whether something is there that a repository consists of.
    private static func hasObjects(_ store: any ObjectStore) async throws -> Bool {
        try await store.list("v1/").contains { !$0.name.hasPrefix(claimPrefix) }
    }
}
