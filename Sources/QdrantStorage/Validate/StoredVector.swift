/// A vector as a server writes it, of any kind, as numbers that can be compared.
enum StoredVector: Equatable {
    case dense([Float])
    case multi([[Float]])
    /// Ascending in their indices.
    case sparse([UInt64], [Float])

    init?(_ json: JSONValue) {
        if let indices = json["indices"].numbers, let values = Self.floats(json["values"]), indices.count == values.count {
            let order = indices.indices.sorted { indices[$0] < indices[$1] }
            self = .sparse(order.map { indices[$0] }, order.map { values[$0] })
        } else if let values = Self.floats(json) {
            self = .dense(values)
        } else if let rows = json.array?.map(Self.floats), !rows.contains(nil) {
            self = .multi(rows.compactMap { $0 })
        } else {
            return nil
        }
    }

    /// All vectors of a point by name; a single unnamed one has the empty name.
    static func named(_ json: JSONValue) -> [String: JSONValue] {
        if json.isNull { return [:] }
        return json.object ?? ["": json]
    }

    private static func floats(_ json: JSONValue) -> [Float]? {
        guard let array = json.array else { return nil }
        var values: [Float] = []
        values.reserveCapacity(array.count)
        for item in array {
            guard let value = item.double else { return nil }
            values.append(Float(value))
        }
        return values
    }

    /// By how much two of one form differ at the most, as a share of the value; infinite where their forms differ.
    func distance(to other: StoredVector) -> Double {
        switch (self, other) {
        case (.dense(let one), .dense(let two)): return Self.distance(one, two)
        case (.multi(let one), .multi(let two)) where one.count == two.count:
            return zip(one, two).map(Self.distance).max() ?? 0
        case (.sparse(let at, let one), .sparse(let other, let two)) where at == other: return Self.distance(one, two)
        default: return .infinity
        }
    }

    private static func distance(_ one: [Float], _ two: [Float]) -> Double {
        guard one.count == two.count else { return .infinity }
        var most = 0.0
        for (left, right) in zip(one, two) where left != right {
            most = max(most, relativeDistance(Double(left), Double(right)))
        }
        return most
    }

    /// Bytes that are the same for the same numbers, for a digest.
    var canonicalBytes: [UInt8] {
        var bytes: [UInt8] = []
        func add(_ values: [Float]) {
            Self.append(UInt64(values.count), &bytes)
            for value in values { withUnsafeBytes(of: value.bitPattern.littleEndian) { bytes += $0 } }
        }
        switch self {
        case .dense(let values):
            bytes.append(UInt8(ascii: "d"))
            add(values)
        case .multi(let rows):
            bytes.append(UInt8(ascii: "m"))
            Self.append(UInt64(rows.count), &bytes)
            for row in rows { add(row) }
        case .sparse(let indices, let values):
            bytes.append(UInt8(ascii: "s"))
            for index in indices { Self.append(index, &bytes) }
            add(values)
        }
        return bytes
    }

    private static func append(_ number: UInt64, _ bytes: inout [UInt8]) {
        withUnsafeBytes(of: number.littleEndian) { bytes += $0 }
    }
}

/// |one − other| as a share of the larger, or of 1 where both are smaller.
func relativeDistance(_ one: Double, _ other: Double) -> Double { abs(one - other) / max(1, abs(one), abs(other)) }

extension JSONValue {
    /// The same but for how numbers are written: 1 and 1.0.
    func isSame(as other: JSONValue) -> Bool {
        switch (self, other) {
        case (.object(let one), .object(let two)):
            one.count == two.count && one.allSatisfy { name, value in two[name].map { value.isSame(as: $0) } == true }
        case (.array(let one), .array(let two)):
            one.count == two.count && zip(one, two).allSatisfy { $0.isSame(as: $1) }
        case (.double(let one), _) where other.double != nil: one == other.double
        case (_, .double(let two)) where double != nil: double == two
        default: self == other
        }
    }

    /// Paths at which two documents differ, with both values; a null and a missing member are the same.
    func differences(from other: JSONValue, at path: String = "") -> [(path: String, one: JSONValue, other: JSONValue)] {
        if let one = object, let two = other.object {
            return Set(one.keys).union(two.keys).sorted().flatMap { name in
                self[name].differences(from: other[name], at: path.isEmpty ? name : "\(path).\(name)")
            }
        }
        return isSame(as: other) ? [] : [(path, self, other)]
    }

    /// As compact text.
    var text: String { (try? String(decoding: encoded, as: UTF8.self)) ?? "?" }
}
