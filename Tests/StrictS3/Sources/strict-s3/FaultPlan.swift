/// What may go wrong with one request.
enum Fault: String, Sendable, CaseIterable {
    case dropBefore, dropAfter, burst503
    case error503, error500, resetBefore, resetAfter, shortBody, hang, slowDownIn200, conflict409, stallBody

    /// Those that have a rate of their own.
    static let rated: [Fault] = [
        .error503, .error500, .resetBefore, .resetAfter, .shortBody, .hang, .slowDownIn200, .conflict409,
        .stallBody,
    ]
}

/// Which request gets which fault: a pure function of the seed and the request's number, so that a
/// run with the same requests in the same order meets the same faults.
struct FaultPlan: Sendable {
    var seed: UInt64 = 0
    var rates: [Fault: Double] = [:]
    var hangSeconds: Double = 30
    var drop: (request: Int, after: Bool)?
    var burst: (from: Int, count: Int)?
    /// Only these operations meet rated faults; nil: all.
    var operations: Set<String>?

    init(_ reader: inout FieldReader) throws {
        seed = UInt64(bitPattern: Int64(try reader.int("seed") ?? 0))
        var rateReader = try FieldReader(reader.value("rates"), in: "rates")
        for fault in Fault.rated {
            if let rate = try rateReader.double(fault.rawValue), rate > 0 { rates[fault] = rate }
        }
        try rateReader.finish()
        hangSeconds = try reader.double("hangSeconds") ?? 30
        operations = try reader.strings("faultOperations").map(Set.init)
        if let value = reader.value("drop") {
            var dropReader = try FieldReader(value, in: "drop")
            guard let request = try dropReader.int("request"), let when = try dropReader.string("when"),
                when == "before" || when == "after"
            else { throw FieldReader.Problem(description: "drop needs request, and when = before or after") }
            try dropReader.finish()
            drop = (request, when == "after")
        }
        if let value = reader.value("burst503") {
            var burstReader = try FieldReader(value, in: "burst503")
            guard let from = try burstReader.int("from"), let count = try burstReader.int("count") else {
                throw FieldReader.Problem(description: "burst503 needs from and count")
            }
            try burstReader.finish()
            burst = (from, count)
        }
    }

    /// The fault of request `number`, if any; the first of `Fault.rated` whose die falls below its rate.
    func fault(number: Int, operation: Operation?, isConditional: Bool) -> Fault? {
        if let drop, drop.request == number { return drop.after ? .dropAfter : .dropBefore }
        if let burst, number >= burst.from, number < burst.from + burst.count { return .burst503 }
        if let operations, !operations.contains(operation?.rawValue ?? "") { return nil }
        return Fault.rated.first { fault in
            guard let rate = rates[fault], chance(number, fault.rawValue) < rate else { return false }
            return switch fault {
            case .slowDownIn200: operation == .completeMultipartUpload || operation == .deleteObjects
            case .conflict409:
                isConditional && (operation == .putObject || operation == .completeMultipartUpload)
            case .shortBody, .stallBody: operation?.answersWithBody ?? false
            default: true
            }
        }
    }

    /// A number in 0..<1 that depends on nothing but the seed, the request and the question.
    func chance(_ number: Int, _ question: String) -> Double {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in question.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        let mixed = Self.mix(Self.mix(seed &+ 0x9E37_79B9_7F4A_7C15) ^ Self.mix(UInt64(number)) ^ hash)
        return Double(mixed >> 11) * 0x1p-53
    }

    /// The finalizer of SplitMix64.
    private static func mix(_ value: UInt64) -> UInt64 {
        var z = value &+ 0x9E37_79B9_7F4A_7C15
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
