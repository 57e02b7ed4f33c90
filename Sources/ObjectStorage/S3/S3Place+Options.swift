import BackupBase

/// The options of an `s3://` URL.
extension S3Place {
    /// Name and meaning of each, for help and manual.
    public static let options: [(name: String, meaning: String)] = [
        ("endpoint", "address of the server, for stores other than AWS (or AWS_ENDPOINT_URL_S3)"),
        ("region", "the bucket's region (or AWS_REGION); found out where it is not given"),
        ("style", "'virtual' (bucket.host, the default on AWS) or 'path' (host/bucket, with an endpoint)"),
        ("profile", "profile of the AWS configuration files (or AWS_PROFILE)"),
        ("credentials", "file with the keys, in the form of the AWS credentials file"),
        ("ca-file", "PEM file of the authorities to trust instead of the system's"),
        ("class", "storage class of packs, for example STANDARD_IA"),
        ("sse", "encryption by the store: AES256, aws:kms, or aws:kms:KEY"),
        ("sse-c-key", "file with a key of 32 bytes for SSE-C"),
        ("checksums", "'on' or 'off': x-amz-checksum-sha256 (default: on AWS, and with a lock)"),
        ("lock", "Object Lock of everything under v1/: 'compliance' or 'governance'"),
        ("lock-for", "how long, for example 30d"),
        ("connections", "requests at once (8)"),
        ("timeout", "seconds without a byte until a request is repeated (30)"),
        ("retry-for", "how long a request is repeated, for example 10m"),
        ("limit-upload", "bytes a second, for example 20MiB"),
        ("limit-download", "bytes a second"),
        ("multipart-above", "size above which uploads go in parts (5GiB)"),
        ("part-size", "size of such a part (64MiB)"),
    ]

    mutating func set(_ option: Substring) throws {
        let halves = option.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(halves[0])
        guard halves.count == 2, let value = percentDecoded(halves[1]), !value.isEmpty else {
            throw Self.wrong("the option '\(printable(name.utf8))' has no value", "Give ?\(printable(name.utf8))=VALUE.")
        }
        switch name {
        case "endpoint": endpoint = try Self.checkedEndpoint(value)
        case "region": region = try Self.region(name, value)
        case "style": addressing = try Self.choice(name, value)
        case "profile": profile = value
        case "credentials": credentialsFile = value
        case "ca-file": certificates = value
        case "class": storageClass = try Self.word(name, value)
        case "sse": encryption = try Self.encryption(value)
        case "sse-c-key": encryption = .customer(keyFile: value)
        case "checksums": checksums = try Self.isOn(name, value)
        case "lock": lockMode = try Self.choice(name, value)
        case "lock-for": lockFor = Int64(try Self.seconds(name, value) * 1e9)
        case "connections": connections = try Self.number(name, value, 1...256)
        case "timeout": stallTimeout = try Self.seconds(name, value)
        case "retry-for": patience = try Self.seconds(name, value)
        case "limit-upload": uploadLimit = try Self.size(name, value)
        case "limit-download": downloadLimit = try Self.size(name, value)
        case "multipart-above": multipartAbove = try Self.size(name, value)
        case "part-size": partSize = try Self.size(name, value)
        default:
            let near = Self.options.map(\.name).min { Self.distance($0, name) < Self.distance($1, name) } ?? ""
            throw Self.wrong("there is no option '\(printable(name.utf8))' of an s3:// URL", "Did you mean '\(near)'?")
        }
    }

    /// What only the whole can tell. Called once everything is set.
    func validate() throws {
        guard (lockMode == nil) == (lockFor == 0) else {
            throw Self.wrong("lock and lock-for belong together", "Give ?lock=compliance&lock-for=30d.")
        }
        guard lockMode == nil || lockFor >= 86_400_000_000_000 else {
            throw Self.wrong("a lock of less than a day protects nothing", "Give ?lock-for=30d.")
        }
        // A run is given up for dead after an hour, and what it commits must have arrived before (docs/prune.md).
        guard patience <= 1800 else {
            throw Self.wrong(
                "a request that is repeated for more than 30 minutes may come too late", "Give ?retry-for=30m or less.")
        }
        if case .customer = encryption, endpoint?.hasPrefix("http://") == true, !isLoopback {
            throw Self.wrong("SSE-C would send its key in the clear", "Use an https endpoint.")
        }
    }

    private var isLoopback: Bool {
        let authority = (endpoint ?? "").dropFirst("http://".count)
        if authority == "[::1]" || authority.hasPrefix("[::1]:") { return true }
        let host = authority.prefix { $0 != ":" }
        // Four numbers: "127.example.com" is somebody else's.
        let isAddress = host.split(separator: ".", omittingEmptySubsequences: false).compactMap { UInt8($0) }.count == 4
        return host == "localhost" || host.hasPrefix("127.") && isAddress
    }

    // MARK: - Values

    private static func wrong(_ name: String, _ value: String, _ hint: String) -> StoreError {
        wrong("'\(printable(value.utf8))' is no value of the option '\(name)'", hint)
    }

    private static func choice<Value: RawRepresentable>(_ name: String, _ value: String) throws -> Value
    where Value.RawValue == String {
        guard let found = Value(rawValue: value.lowercased()) else {
            throw wrong(name, value, "It is \(options.first { $0.name == name }?.meaning ?? "").")
        }
        return found
    }

    private static func word(_ name: String, _ value: String) throws -> String {
        guard value.utf8.allSatisfy({ (0x21...0x7e).contains($0) }), (1...128).contains(value.utf8.count) else {
            throw wrong(name, value, "Give one word.")
        }
        return value
    }

    /// A region becomes part of a host's name: it must not end that.
    static func region(_ name: String, _ value: String) throws -> String {
        guard value.utf8.allSatisfy({ isAlphanumeric($0) || "-_.".utf8.contains($0) }) else {
            throw wrong(name, value, "Give one word, for example eu-central-1.")
        }
        return try word(name, value)
    }

    private static func isOn(_ name: String, _ value: String) throws -> Bool {
        switch value {
        case "on", "yes", "true": true
        case "off", "no", "false": false
        default: throw wrong(name, value, "Give 'on' or 'off'.")
        }
    }

    private static func encryption(_ value: String) throws -> Encryption {
        if value == "AES256" { return .store }
        if value == "aws:kms" { return .kms(key: nil) }
        guard value.hasPrefix("aws:kms:") else { throw wrong("sse", value, "Give AES256, aws:kms or aws:kms:KEY.") }
        return .kms(key: try word("sse", String(value.dropFirst("aws:kms:".count))))
    }

    private static func number(_ name: String, _ value: String, _ range: ClosedRange<Int>) throws -> Int {
        guard let number = Int(value), range.contains(number) else {
            throw wrong(name, value, "Give a number from \(range.lowerBound) to \(range.upperBound).")
        }
        return number
    }

    /// "30", "30s", "10m", "12h", "30d"
    private static func seconds(_ name: String, _ value: String) throws -> Double {
        let units: [Character: Double] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
        let unit = value.last.flatMap { units[$0] }
        guard let number = Double(unit == nil ? value[...] : value.dropLast()), number > 0, number * (unit ?? 1) < 3.2e9
        else { throw wrong(name, value, "Give a time with its unit, for example 30s, 10m or 30d.") }
        return number * (unit ?? 1)
    }

    private static func size(_ name: String, _ value: String) throws -> Int {
        guard let size = parseBytes(value), size > 0 else {
            throw wrong(name, value, "Give a size with its unit, for example 20MiB.")
        }
        return size
    }

    /// Edits from one word to the other (Levenshtein), for "did you mean".
    private static func distance(_ one: String, _ two: String) -> Int {
        let (first, second) = (Array(one.utf8), Array(two.utf8.prefix(64)))
        var row = Array(0...second.count)
        for (index, byte) in first.enumerated() {
            var diagonal = row[0]
            row[0] = index + 1
            for column in second.indices {
                let above = row[column + 1]
                row[column + 1] = min(above + 1, row[column] + 1, diagonal + (byte == second[column] ? 0 : 1))
                diagonal = above
            }
        }
        return row[second.count]
    }
}
