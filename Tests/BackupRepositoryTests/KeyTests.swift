import BackupBase
import Crypto
import Foundation
import Testing

@testable import BackupRepository

@Suite struct KeyTests {
    private let ring = KeyRing.generate(repository: .random(.system))

    private func slot(n: Int = 1 << 15, r: Int = 8, p: Int = 1) -> KeySlot {
        KeySlot(
            n: n, r: r, p: p, salt: [UInt8](repeating: 1, count: 16).hex, nonce: [UInt8](repeating: 2, count: 12).hex,
            sealed: [UInt8](repeating: 3, count: 80).hex, label: "l", created: "c")
    }

    // MARK: - Slots

    @Test func `a slot opens with its password, for its repository and under its name only`() throws {
        let slot = try KeySlot.make(
            ring, password: Array("secret".utf8), slot: [1, 2, 3, 4, 5, 6, 7, 8], label: "x", ambient: .system)
        func open(_ password: String, _ repository: ObjectID, _ name: [UInt8]) throws -> KeyRing? {
            try slot.open(password: Array(password.utf8), repository: repository, slot: name)
        }
        let opened = try #require(try open("secret", ring.repository, [1, 2, 3, 4, 5, 6, 7, 8]))
        #expect(opened.secrets == ring.secrets)
        #expect(try open("Secret", ring.repository, [1, 2, 3, 4, 5, 6, 7, 8]) == nil)
        #expect(try open("secret", .random(.system), [1, 2, 3, 4, 5, 6, 7, 8]) == nil)
        #expect(try open("secret", ring.repository, [1, 2, 3, 4, 5, 6, 7, 9]) == nil)
    }

    private static let bad: [(n: Int, r: Int, p: Int)] = [
        (0, 8, 1), (1, 8, 1), (512, 8, 1), (2_097_152, 1, 1), (32769, 8, 1), (-1024, 8, 1), (32768, 0, 1), (32768, 17, 1),
        (32768, 8, 0), (32768, 8, 17), (1_048_576, 16, 1), (Int.max, 8, 1), (32768, -1, 1), (32768, Int.max, 1),
        (32768, 8, Int.max), (Int.min, 8, 1),
    ]

    @Test(arguments: bad)
    func `a key derivation out of bounds is refused before it costs anything`(_ n: Int, _ r: Int, _ p: Int) {
        let clock = ContinuousClock()
        let time = clock.measure {
            #expect(throws: FormatError.self) {
                try slot(n: n, r: r, p: p).open(password: [1], repository: ring.repository, slot: [UInt8](repeating: 0, count: 8))
            }
        }
        #expect(time < .seconds(1))
    }

    @Test func `fields that are no keys are refused, and kinds that are not known are passed over`() throws {
        for change in [
            { $0.salt = "xy" }, { $0.nonce = "00" }, { $0.sealed = "00" }, { $0.sealed += "00" }, { $0.salt = "AB" },
        ] as [(inout KeySlot) -> Void] {
            var changed = slot()
            change(&changed)
            #expect(throws: FormatError.self) { try changed.open(password: [1], repository: ring.repository, slot: []) }
        }
        for change in [{ $0.format = 3 }, { $0.kind = "kms" }, { $0.kdf = "argon2" }] as [(inout KeySlot) -> Void] {
            var changed = slot()
            change(&changed)
            #expect(try changed.open(password: [1], repository: ring.repository, slot: []) == nil)
        }
    }

    // MARK: - Writer keys

    @Test func `a writer key file comes back as a ring that writes and cannot read`() throws {
        let back = try KeyRing(writerKeyFile: ring.writerKeyFile)
        #expect(back.repository == ring.repository && !back.canRead && back.secrets == nil)
        #expect(Array(back.publicKey.rawRepresentation) == Array(ring.publicKey.rawRepresentation))
        // The same derived keys.
        let block = [UInt8](repeating: 9, count: 100)
        #expect(block.withUnsafeBytes { back.blockHasher.id(of: $0) } == block.withUnsafeBytes { ring.blockHasher.id(of: $0) })
        let (header, sealing) = try back.newObject(.pack, .random(.system))
        let sealed = try sealing.seal(block, position: 0)
        #expect(throws: BackupError.self) { try back.openObject(header) }
        #expect(try Array(sealed.withUnsafeBytes { try ring.openObject(header).open($0, position: 0) }) == block)
        // Line ends and blanks of another system do no harm.
        let text = ring.writerKeyFile.replacingOccurrences(of: "\n", with: "\r\n") + "note: something new\r\n"
        #expect(try KeyRing(writerKeyFile: text).repository == ring.repository)
    }

    @Test func `what is no writer key file is refused`() {
        let good = ring.writerKeyFile
        let lines = good.split(separator: "\n").map(String.init)
        var bad = [
            "", "\n", "bgbackup-writer-key-1", "bgbackup-writer-key-2\n" + lines.dropFirst().joined(separator: "\n"), " " + good,
        ]
        for index in 1..<lines.count {
            var without = lines
            without.remove(at: index)
            bad.append(without.joined(separator: "\n"))
            var short = lines
            short[index].removeLast(2)
            bad.append(short.joined(separator: "\n"))
            var upper = lines
            upper[index] = upper[index].replacing(/: .*/) { "\($0.output)".dropLast(1) + "G" }
            bad.append(upper.joined(separator: "\n"))
        }
        for text in bad {
            #expect { try KeyRing(writerKeyFile: text) } throws: { ($0 as? BackupError)?.code == .wrongPassword }
        }
    }

    // MARK: - Sealing

    private func opens(_ sealed: [UInt8], _ sealing: Sealing, _ position: UInt64, extra: [UInt8] = []) -> Bool {
        (try? sealed.withUnsafeBytes { try sealing.open($0, position: position, extra: extra) }) != nil
    }

    @Test func `a piece opens in its own place only`() throws {
        let key = SymmetricKey(size: .bits256)
        let (repository, object) = (ObjectID.random(.system), ObjectID.random(.system))
        let sealing = Sealing(key: key, repository: repository, kind: .pack, object: object)
        let sealed = try sealing.seal(Array("content".utf8), position: 3)
        #expect(opens(sealed, sealing, 3))
        for position in [0, 1, 2, 4, .max] as [UInt64] { #expect(!opens(sealed, sealing, position)) }
        #expect(!opens(sealed, sealing, 3, extra: [0]))
        for kind in [ObjectKind.snapshot, .index] {
            #expect(!opens(sealed, Sealing(key: key, repository: repository, kind: kind, object: object), 3))
        }
        #expect(!opens(sealed, Sealing(key: key, repository: repository, kind: .pack, object: .random(.system)), 3))
        #expect(!opens(sealed, Sealing(key: key, repository: .random(.system), kind: .pack, object: object), 3))
        #expect(
            !opens(sealed, Sealing(key: SymmetricKey(size: .bits256), repository: repository, kind: .pack, object: object), 3))
        for bit in 0..<sealed.count * 8 {
            var changed = sealed
            changed[bit / 8] ^= 1 << UInt8(bit % 8)
            if opens(changed, sealing, 3) { Issue.record("bit \(bit)") }
        }
        for count in 0..<sealed.count { #expect(!opens(Array(sealed.prefix(count)), sealing, 3)) }
    }

    @Test func `no two objects share a key, so that no nonce is used twice`() throws {
        let plain = [UInt8](repeating: 0, count: 64)
        let id = ObjectID.random(.system)
        var seen: Set<[UInt8]> = []
        var made = 0
        func add(_ sealing: Sealing, _ position: UInt64) throws {
            seen.insert(try sealing.seal(plain, position: position))
            made += 1
        }
        // Even under one and the same name: a process that was forked or rolled back.
        for kind in [ObjectKind.pack, .snapshot] {
            for _ in 0..<20 {
                let (_, sealing) = try ring.newObject(kind, id)
                try add(sealing, 0)
                try add(sealing, 1)
            }
        }
        for _ in 0..<20 {
            try add(ring.trailerSealing(of: .random(.system)), Sealing.trailer)
            try add(ring.indexSealing(id, salt: Ambient.system.random(32)), Sealing.body)
            try add(ring.indexSealing(.random(.system), salt: [UInt8](repeating: 0, count: 32)), Sealing.body)
        }
        #expect(seen.count == made)
    }

    @Test func `every derived key is another one`() {
        let block = [UInt8](repeating: 9, count: 100)
        let hashers = [ring.blockHasher, ring.digestHasher, ring.stateHasher]
        var seen = Set(hashers.map { hasher in block.withUnsafeBytes { hasher.id(of: $0).bytes } })
        seen.insert(ring.configurationMAC(block, ring.current))
        #expect(seen.count == 4)
        let other = KeyRing.generate(repository: ring.repository)
        #expect(block.withUnsafeBytes { other.blockHasher.id(of: $0) } != block.withUnsafeBytes { ring.blockHasher.id(of: $0) })
    }

    // MARK: - Configuration

    @Test func `every changed bit of a configuration is noticed`() throws {
        let configuration = Configuration(
            repository: "\(ring.repository)", created: "2026-01-01T00:00:00Z",
            publicKey: Array(ring.publicKey.rawRepresentation).hex, probe: ["conditionalCreate": "yes"])
        let bytes = try configuration.encoded(ring)
        #expect(try UnverifiedConfiguration(parsing: bytes).isGenuine(ring))
        #expect(try UnverifiedConfiguration(parsing: bytes).isGenuine(ring.writer))
        #expect(try !UnverifiedConfiguration(parsing: bytes).isGenuine(.generate(repository: ring.repository)))
        for bit in 0..<(bytes.count - 1) * 8 {
            var changed = bytes
            changed[bit / 8] ^= 1 << UInt8(bit % 8)
            if (try? UnverifiedConfiguration(parsing: changed))?.isGenuine(ring) == true { Issue.record("bit \(bit)") }
        }
        for count in 0..<bytes.count - 1 {
            if (try? UnverifiedConfiguration(parsing: Array(bytes.prefix(count))))?.isGenuine(ring) == true {
                Issue.record("\(count) bytes")
            }
        }
    }
}
