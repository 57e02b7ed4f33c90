import BackupBase
import Glibc
import Testing

@testable import VolumeIO

@Suite struct TargetFileTests {
    private static let parents = ["/var/tmp", "/dev/shm"]

    private func make(_ directory: TestDirectory, size: Int64, direct: Bool = true) throws -> TargetFile {
        try TargetTree(path: directory.path, create: false).makeFile(Array("f".utf8), size: size)
        return TargetFile(
            path: Array("f".utf8), file: Descriptor(open(directory.name("f"), O_RDWR)), size: size, isDevice: false,
            direct: direct)
    }

    @Test(arguments: parents, [1, 4095, 4096, 131_073, 1_000_001, (2 << 20) + 4097])
    func `any length is written, and nothing beyond it`(_ parent: String, _ count: Int) throws {
        for direct in [true, false] {
            let directory = TestDirectory(in: parent)
            let file = try make(directory, size: Int64(count), direct: direct)
            let bytes = noise(count)
            for start in stride(from: 0, to: count, by: 1 << 20) {
                let part = bytes[start..<min(start + (1 << 20), count)]
                try part.withUnsafeBytes { try file.write($0, at: Int64(start)) }
            }
            #expect(directory.content("f") == bytes)
            let buffer = AlignedBuffer(capacity: count + 4096)
            #expect(try file.read(at: 0, count: buffer.capacity, into: buffer) == count)
            #expect(buffer.bytes.elementsEqual(bytes))
            let error = #expect(throws: TargetError.self) {
                try [UInt8](repeating: 1, count: 2).withUnsafeBytes { try file.write($0, at: Int64(count) - 1) }
            }
            #expect(error?.errno == EFBIG)
            #expect(directory.content("f") == bytes)
        }
    }

    @Test func `memory and places that are not aligned are written as well`() throws {
        let directory = TestDirectory()
        let file = try make(directory, size: 5 << 20)
        let bytes = noise(3 << 20)
        try bytes.withUnsafeBytes { memory in
            try file.write(UnsafeRawBufferPointer(rebasing: memory[1...]), at: 0)
            try file.write(UnsafeRawBufferPointer(rebasing: memory[..<1_000_000]), at: (4 << 20) + 7)
        }
        let content = try #require(directory.content("f"))
        #expect(content[..<((3 << 20) - 1)] == bytes[1...])
        #expect(content[((4 << 20) + 7)..<((4 << 20) + 1_000_007)] == bytes[..<1_000_000])
        #expect(content[(3 << 20)..<(4 << 20)].allSatisfy { $0 == 0 })
    }

    @Test(arguments: [true, false])
    func `what is not written stays a hole`(reserve: Bool) throws {
        let directory = TestDirectory()
        let file = try make(directory, size: 50 << 20)
        let bytes = noise(1 << 20)
        for offset in [Int64(1 << 20), 20 << 20, 49 << 20] {
            if reserve { file.preallocate(offset..<offset + (1 << 20)) }
            try bytes.withUnsafeBytes { try file.write($0, at: offset) }
        }
        if reserve { file.preallocate(30 << 20..<31 << 20) }
        let expected: [Range<Int64>] = [1 << 20..<2 << 20, 20 << 20..<21 << 20, 49 << 20..<50 << 20]
        #expect(try file.dataRanges() == expected)
    }

    @Test func `many threads write one file`() async throws {
        let directory = TestDirectory()
        let part = 300_000
        let file = try make(directory, size: Int64(64 * part))
        let executor = BlockingExecutor(threads: 8)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<64 {
                group.addTask(executorPreference: executor) {
                    try noise(part, seed: UInt64(index)).withUnsafeBytes {
                        try file.write($0, at: Int64(index * part))
                    }
                }
            }
            try await group.waitForAll()
        }
        try file.synchronize()
        let expected = (0..<64).flatMap { noise(part, seed: UInt64($0)) }
        #expect(directory.content("f") == expected)
    }

    @Test func `a large file leaves nothing in the page cache`() throws {
        for direct in [true, false] {
            let directory = TestDirectory()
            let file = try make(directory, size: (4 << 20) + 100, direct: direct)
            let bytes = noise((4 << 20) + 100)
            try bytes.withUnsafeBytes { try file.write($0, at: 0) }
            let number = open(directory.name("f"), O_RDONLY)
            defer { close(number) }
            let map = mmap(nil, bytes.count, PROT_READ, MAP_SHARED, number, 0)!
            defer { munmap(map, bytes.count) }
            var resident = [UInt8](repeating: 0, count: 1025)
            must(mincore(map, bytes.count, &resident))
            #expect(resident.allSatisfy { $0 & 1 == 0 })
        }
    }

    @Test func `only files and devices can be targets of an image`() throws {
        let directory = TestDirectory()
        directory.write("image", [1, 2, 3])
        directory.makeDirectory("d")
        let file = try TargetFile.device(path: directory.path + "/image")
        #expect(file.size == 3)
        try [UInt8](arrayLiteral: 9).withUnsafeBytes { try file.write($0, at: 2) }
        #expect(directory.content("image") == [1, 2, 9])
        #expect(throws: TargetError.self) { try TargetFile.device(path: directory.path + "/d") }
        #expect(throws: TargetError.self) { try TargetFile.device(path: directory.path + "/missing") }
    }

    @Test(LoopVolume.condition)
    func `a mounted device is refused`() throws {
        let volume = try #require(LoopVolume("ext4"))
        let directory = TestDirectory()
        try #require(shell("findmnt -n -o SOURCE '\(volume.path)' > '\(directory.path)/device'"))
        let device = String(decoding: directory.content("device")!.dropLast(), as: UTF8.self)
        let error = #expect(throws: TargetError.self) { try TargetFile.device(path: device) }
        #expect(error?.errno == EBUSY)
    }
}
