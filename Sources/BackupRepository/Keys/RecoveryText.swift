import BackupBase

/// An exported key as lines that people can type: 24 characters in groups of
/// four, and a group that checks the line (docs/format.md).
public enum RecoveryText {
    /// No I, L, O and U: what looks like another character is read as that one.
    private static let alphabet = Array("0123456789ABCDEFGHJKMNPQRSTVWXYZ".utf8)
    private static let lineBytes = 15
    private static let lineCharacters = 24
    private static let checkCharacters = 4
    private static let version: UInt8 = 1
    /// Version, generations, repository, three costs, salt, nonce, seconds; then the sealed secrets.
    private static let headSize = 1 + 1 + 16 + 3 + 16 + 12 + 4

    // MARK: - Printing

    /// The lines, without their numbers.
    public static func lines(_ export: KeyExport) -> [String] {
        let payload = bytes(export)
        return stride(from: 0, to: payload.count, by: lineBytes).enumerated().map { number, start in
            let part = Array(payload[start..<min(start + lineBytes, payload.count)])
            let padded = part + [UInt8](repeating: 0, count: lineBytes - part.count)
            let characters = encode(padded) + check(number + 1, padded)
            return stride(from: 0, to: characters.count, by: 4).map {
                String(decoding: characters[$0..<$0 + 4], as: UTF8.self)
            }.joined(separator: " ")
        }
    }

    private static func bytes(_ export: KeyExport) -> [UInt8] {
        let slot = export.slot
        let seconds = UInt32(clamping: Int64(parseTime(slot.created) ?? 0))
        let costs = [UInt8(slot.n.trailingZeroBitCount), UInt8(slot.r), UInt8(slot.p)]
        let time = (0..<4).map { UInt8(truncatingIfNeeded: seconds >> (8 * $0)) }
        return [version, UInt8(slot.generation)] + (bytesFromHex(export.repository) ?? []) + costs
            + (bytesFromHex(slot.salt) ?? []) + (bytesFromHex(slot.nonce) ?? []) + time + (bytesFromHex(slot.sealed) ?? [])
    }

    /// 15 bytes as 24 characters, five bits each, the highest first.
    private static func encode(_ bytes: [UInt8]) -> [UInt8] {
        var characters: [UInt8] = []
        var (bits, count) = (0, 0)
        for byte in bytes {
            bits = bits << 8 | Int(byte)
            count += 8
            while count >= 5 {
                count -= 5
                characters.append(alphabet[bits >> count & 31])
            }
        }
        return characters
    }

    /// The low 20 bits of CRC-32 of the line's number (u16) and bytes.
    private static func check(_ number: Int, _ bytes: [UInt8]) -> [UInt8] {
        var crc: UInt32 = 0xffff_ffff
        for byte in [UInt8(number & 0xff), UInt8(number >> 8)] + bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xedb8_8320 : crc >> 1 }
        }
        crc = ~crc
        return (0..<checkCharacters).reversed().map { alphabet[Int(crc >> (5 * UInt32($0)) & 31)] }
    }

    // MARK: - Reading

    /// The key that somebody typed: case, blanks and dashes do not matter, nor does what else the file holds where lines
    /// have their numbers. Throws `.usage` and names each line that is mistyped.
    public static func read(_ text: String) throws -> KeyExport {
        let typed = try numbered(text)
        guard !typed.isEmpty else { throw mistyped(["it has no line of a key"]) }
        var problems: [String] = []
        var parts: [[UInt8]] = []
        for number in 1...typed.keys.max()! {
            guard let line = typed[number] else {
                problems.append("line \(number) is missing")
                continue
            }
            switch decode(number, line) {
            case .success(let bytes): parts.append(bytes)
            case .failure(let problem): problems.append("line \(number) \(problem)")
            }
        }
        guard problems.isEmpty else { throw mistyped(problems) }
        return try export(parts.flatMap { $0 }, lines: parts.count)
    }

    private static func mistyped(_ problems: [String]) -> BackupError {
        BackupError(
            .usage, "the sheet is mistyped: \(problems.prefix(8).joined(separator: "; "))",
            hint: "Compare these lines with the printed ones, each with the number before it and the check group at its end.")
    }

    /// Lines by their numbers; those of a file in which none has one, in their order.
    private static func numbered(_ text: String) throws -> [Int: [UInt8]] {
        var numbered: [Int: [UInt8]] = [:]
        var plain: [[UInt8]] = []
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split(whereSeparator: \.isWhitespace)
            guard let first = words.first else { continue }
            let digits = first.last.map { ":.)".contains($0) } == true ? first.dropLast() : first
            plain.append(Array(line.utf8))
            guard digits.utf8.count <= 3, let number = Int(digits), number > 0, words.count > 1 else { continue }
            guard numbered[number] == nil else { throw mistyped(["line \(number) is there twice"]) }
            numbered[number] = Array(words.dropFirst().joined().utf8)
        }
        if !numbered.isEmpty { return numbered }
        guard plain.count < 1000 else { return [:] }
        return Dictionary(uniqueKeysWithValues: plain.enumerated().map { ($0 + 1, $1) })
    }

    private struct Problem: Error, CustomStringConvertible { var description: String }

    private static func decode(_ number: Int, _ line: [UInt8]) -> Result<[UInt8], Problem> {
        var values: [Int] = []
        for byte in line where byte != 0x20 && byte != 0x09 && byte != 0x2d {
            guard let value = value(of: byte) else {
                return .failure(Problem(description: "has '\(printable([byte]))', which no line of a key has"))
            }
            values.append(value)
        }
        let count = lineCharacters + checkCharacters
        guard values.count == count else {
            return .failure(Problem(description: "has \(values.count) characters instead of \(count)"))
        }
        let bytes = decode(values)
        if holds(number, values) { return .success(bytes) }
        let place = misplaced(number, values).map { ", perhaps in group \($0 / 4 + 1)" } ?? ""
        return .failure(Problem(description: "does not fit its check group\(place)"))
    }

    private static func value(of byte: UInt8) -> Int? {
        let upper = (0x61...0x7a).contains(byte) ? byte - 0x20 : byte
        let like: [UInt8: UInt8] = [
            UInt8(ascii: "O"): UInt8(ascii: "0"), UInt8(ascii: "I"): UInt8(ascii: "1"),
            UInt8(ascii: "L"): UInt8(ascii: "1"),
        ]
        return alphabet.firstIndex(of: like[upper] ?? upper)
    }

    private static func holds(_ number: Int, _ values: [Int]) -> Bool {
        check(number, decode(values)) == values.suffix(checkCharacters).map { alphabet[$0] }
    }

    /// Where one other character would make the line right; nil where there is no such place, or several.
    private static func misplaced(_ number: Int, _ values: [Int]) -> Int? {
        var found: Set<Int> = []
        for index in values.indices {
            var changed = values
            for value in 0..<32 {
                changed[index] = value
                if holds(number, changed) { found.insert(index) }
            }
        }
        return found.count == 1 ? found.first : nil
    }

    private static func decode(_ values: [Int]) -> [UInt8] {
        var bytes: [UInt8] = []
        var (bits, count) = (0, 0)
        for value in values.prefix(lineCharacters) {
            bits = (bits << 5 | value) & 0xfff
            count += 5
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> count))
            }
        }
        return bytes
    }

    private static func export(_ payload: [UInt8], lines: Int) throws -> KeyExport {
        guard payload[0] == version, (1...KeyPair.most).contains(Int(payload[1])) else {
            throw BackupError(
                .unsupportedFormat, "the sheet is of a kind that this program does not know", hint: "Use a newer bgbackup.")
        }
        let generation = Int(payload[1])
        let size = headSize + 64 * generation + Sealing.tagSize
        let wanted = (size + lineBytes - 1) / lineBytes
        guard lines == wanted else {
            throw mistyped(["it has \(lines) lines of \(wanted)"])
        }
        var rest = payload[2..<size]
        func take(_ count: Int) -> [UInt8] {
            defer { rest = rest.dropFirst(count) }
            return Array(rest.prefix(count))
        }
        let (repository, costs, salt, nonce) = (ObjectID(bytes: take(16)), take(3), take(16), take(12))
        let seconds = take(4).enumerated().reduce(Int64(0)) { $0 | Int64($1.element) << (8 * Int64($1.offset)) }
        guard costs[0] < 32 else { throw mistyped(["what it holds is no key"]) }
        let slot = KeySlot(
            format: generation > 1 ? 2 : 1, n: 1 << Int(costs[0]), r: Int(costs[1]), p: Int(costs[2]), salt: salt.hex,
            nonce: nonce.hex, sealed: Array(rest).hex, label: "export", created: formatTime(seconds * 1_000_000_000))
        return KeyExport(repository: repository, slot: slot)
    }
}
