/// Filter 1 of the format: the bytes of 4-byte numbers, sorted by significance.
///
/// The exponents of float vectors then stand together and compress, the noise
/// of their mantissas stands apart and costs no time (DESIGN.md §2).
enum Planes {
    /// output[p·q + i] = input[4·i + p]; the rest (count mod 4) is copied.
    static func split(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawPointer) {
        guard let base = input.baseAddress else { return }
        let quarter = input.count / 4
        var index = 0
        // 16 numbers at a time: shuffles of a 64-byte vector.
        while index + 16 <= quarter {
            let numbers = base.loadUnaligned(fromByteOffset: 4 * index, as: SIMD64<UInt8>.self)
            let even = numbers.evenHalf
            let odd = numbers.oddHalf
            output.storeBytes(of: even.evenHalf, toByteOffset: index, as: SIMD16<UInt8>.self)
            output.storeBytes(of: odd.evenHalf, toByteOffset: quarter + index, as: SIMD16<UInt8>.self)
            output.storeBytes(of: even.oddHalf, toByteOffset: 2 * quarter + index, as: SIMD16<UInt8>.self)
            output.storeBytes(of: odd.oddHalf, toByteOffset: 3 * quarter + index, as: SIMD16<UInt8>.self)
            index += 16
        }
        let bytes = output.assumingMemoryBound(to: UInt8.self)
        while index < quarter {
            for plane in 0..<4 { bytes[plane * quarter + index] = input[4 * index + plane] }
            index += 1
        }
        for position in 4 * quarter..<input.count { bytes[position] = input[position] }
    }

    /// Undoes `split`.
    static func join(_ input: UnsafeRawBufferPointer, into output: UnsafeMutableRawPointer) {
        guard let base = input.baseAddress else { return }
        let quarter = input.count / 4
        var index = 0
        while index + 16 <= quarter {
            var even = SIMD32<UInt8>()
            var odd = SIMD32<UInt8>()
            even.evenHalf = base.loadUnaligned(fromByteOffset: index, as: SIMD16<UInt8>.self)
            odd.evenHalf = base.loadUnaligned(fromByteOffset: quarter + index, as: SIMD16<UInt8>.self)
            even.oddHalf = base.loadUnaligned(fromByteOffset: 2 * quarter + index, as: SIMD16<UInt8>.self)
            odd.oddHalf = base.loadUnaligned(fromByteOffset: 3 * quarter + index, as: SIMD16<UInt8>.self)
            var numbers = SIMD64<UInt8>()
            numbers.evenHalf = even
            numbers.oddHalf = odd
            output.storeBytes(of: numbers, toByteOffset: 4 * index, as: SIMD64<UInt8>.self)
            index += 16
        }
        let bytes = output.assumingMemoryBound(to: UInt8.self)
        while index < quarter {
            for plane in 0..<4 { bytes[4 * index + plane] = input[plane * quarter + index] }
            index += 1
        }
        for position in 4 * quarter..<input.count { bytes[position] = input[position] }
    }
}
