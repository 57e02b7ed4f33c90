import BackupBase
import Foundation
import Testing

@testable import BackupRepository

@Suite struct CompressionTests {
    @Test(arguments: Array(0...300) + [4095, 65537, (1 << 20) + 3])
    func `planes are what the format says, and join undoes split`(_ count: Int) {
        var random = Seeded(count)
        let input = random.bytes(count)
        var planes = [UInt8](repeating: 0xaa, count: count + 8)
        input.withUnsafeBytes { source in planes.withUnsafeMutableBytes { Planes.split(source, into: $0.baseAddress!) } }
        let quarter = count / 4
        if count < 5000 {
            for index in 0..<quarter {
                for plane in 0..<4 where planes[plane * quarter + index] != input[4 * index + plane] {
                    Issue.record("byte \(plane) of number \(index)")
                }
            }
        }
        #expect(planes[(4 * quarter)..<count] == input[(4 * quarter)...])
        #expect(planes[count...].allSatisfy { $0 == 0xaa }, "nothing is written beyond the end")
        var back = [UInt8](repeating: 0xaa, count: count + 8)
        planes.withUnsafeBytes { source in
            back.withUnsafeMutableBytes { Planes.join(UnsafeRawBufferPointer(rebasing: source[..<count]), into: $0.baseAddress!) }
        }
        #expect(Array(back.prefix(count)) == input)
        #expect(back[count...].allSatisfy { $0 == 0xaa })
    }

    /// What a frame may hold.
    enum Kind: CaseIterable { case noise, zeros, text, floats, halfNoise, ramp }

    private func bytes(_ kind: Kind, _ count: Int) -> [UInt8] {
        var random = Seeded(count)
        switch kind {
        case .noise: return random.bytes(count)
        case .zeros: return [UInt8](repeating: 0, count: count)
        case .text:
            return Array(repeating: Array("{\"payload\": \"value\", \"n\": 17}".utf8), count: count / 28 + 1).joined().prefix(
                count
            ).map { $0 }
        case .floats:
            return (0..<count / 4 + 1).flatMap { _ in
                withUnsafeBytes(of: Float.random(in: -1...1, using: &random)) { Array($0) }
            }.prefix(count).map { $0 }
        case .halfNoise: return random.bytes(count / 2) + [UInt8](repeating: 3, count: count - count / 2)
        case .ramp: return (0..<count).map { UInt8(truncatingIfNeeded: $0 / 7) }
        }
    }

    private static let pool = BufferPool(size: PackLimits.frame + (PackLimits.frame >> 7) + 4096, keep: 4)

    @Test(arguments: Kind.allCases, [1, 3, 63, 4096, 4097, 65_537, 200_000, PackLimits.frame])
    func `a frame comes back as it was, whatever coding is chosen`(_ kind: Kind, _ count: Int) throws {
        let plain = bytes(kind, count)
        for cohort in Cohort.allCases {
            let (coding, payload) = plain.withUnsafeBytes { FrameCoding.encode($0, cohort: cohort, buffers: Self.pool) }
            #expect(payload.count <= count)
            let output = AlignedBuffer(capacity: count)
            try FrameCoding.decode(Data(payload.bytes), coding, length: count, into: output, buffers: Self.pool)
            #expect(Array(output.bytes) == plain)
            // A length that the trailer does not say is refused.
            for wrong in [count - 1, count + 1] where wrong >= 0 && wrong <= PackLimits.frame {
                let room = AlignedBuffer(capacity: wrong)
                #expect(throws: FormatError.self) {
                    try FrameCoding.decode(Data(payload.bytes), coding, length: wrong, into: room, buffers: Self.pool)
                }
            }
        }
    }

    @Test func `floats get smaller by their planes and noise is stored`() {
        let floats = bytes(.floats, 1 << 20)
        let (coding, payload) = floats.withUnsafeBytes { FrameCoding.encode($0, cohort: .writtenOnce, buffers: Self.pool) }
        #expect(coding.filter == .planes4)
        #expect(Double(payload.count) < 0.95 * Double(floats.count))
        let noise = bytes(.noise, 1 << 20)
        #expect(
            noise.withUnsafeBytes { FrameCoding.encode($0, cohort: .writtenOnce, buffers: Self.pool) }.coding.codec == .stored)
    }

    @Test(arguments: 0..<200) func `changed payloads are refused or have the right length`(_ seed: Int) {
        var random = Seeded(seed)
        let plain = bytes([.text, .floats, .ramp][seed % 3], 20_000)
        let (coding, payload) = plain.withUnsafeBytes { FrameCoding.encode($0, cohort: .mutable, buffers: Self.pool) }
        let output = AlignedBuffer(capacity: plain.count)
        let changed = mutated(Array(payload.bytes), &random)
        try? FrameCoding.decode(Data(changed), coding, length: plain.count, into: output, buffers: Self.pool)
        #expect(output.count == plain.count)
    }

    @Test func `a bomb is refused before it is inflated`() throws {
        let zeros = [UInt8](repeating: 0, count: 8 << 20)
        let packed = [UInt8](unsafeUninitializedCapacity: Compressor.bound(zeros.count)) { buffer, count in
            count = zeros.withUnsafeBytes { input in
                Compressor.with { $0.compress(input, into: UnsafeMutableRawBufferPointer(buffer), .small) } ?? 0
            }
        }
        #expect(packed.count < 4096)
        #expect(throws: FormatError.self) { try Decompression.inflate(Data(packed), limit: (8 << 20) - 1) }
        #expect(try Decompression.inflate(Data(packed), limit: 8 << 20) == zeros)
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { room.deallocate() }
        #expect(throws: FormatError.self) { try Decompression.inflate(Data(packed), into: room) }
    }

    @Test(
        arguments: [[], [0x28, 0xb5, 0x2f, 0xfd], [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7, 8]]
            as [[UInt8]])
    func `what is no zstd frame, or does not say its size, is refused`(_ bytes: [UInt8]) {
        #expect(throws: FormatError.self) { try Decompression.inflate(Data(bytes), limit: 1 << 20) }
    }
}
