import Foundation

/// One bucket: its entries by key, and the keys in order for listings.
struct Bucket: Sendable {
    enum Versioning: String, Sendable {
        case off = ""
        case enabled = "Enabled"
        case suspended = "Suspended"
    }

    struct Upload: Sendable {
        struct Part: Sendable {
            var version: ObjectVersion
            var sha256: [UInt8]
        }

        var key: ObjectKey
        var initiated: Date
        var attributes: ObjectAttributes
        var parts: [Int: Part] = [:]
    }

    let name: String
    var region: String
    var objectLock: Bool
    var versioning: Versioning
    private(set) var keys: [ObjectKey] = []
    private(set) var entries: [ObjectKey: ObjectEntry] = [:]
    var uploads: [String: Upload] = [:]

    init(name: String, region: String, objectLock: Bool, versioning: Bool) {
        self.name = name
        self.region = region
        self.objectLock = objectLock
        self.versioning = versioning ? .enabled : .off
    }

    subscript(_ key: ObjectKey) -> ObjectEntry? {
        get { entries[key] }
        set {
            if let newValue {
                if entries.updateValue(newValue, forKey: key) == nil {
                    keys.insert(key, at: firstIndex(notBefore: key))
                }
            } else if entries.removeValue(forKey: key) != nil {
                keys.remove(at: firstIndex(notBefore: key))
            }
        }
    }

    /// Where `key` is or would be among the sorted keys.
    func firstIndex(notBefore key: ObjectKey) -> Int {
        var (low, high) = (0, keys.count)
        while low < high {
            let middle = (low + high) / 2
            if keys[middle] < key { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// Adds a version as the current one: beside the others when versioned, in place of "null" otherwise.
    mutating func add(_ version: ObjectVersion, to key: ObjectKey, staleFor: Double) {
        var entry = self[key] ?? ObjectEntry(versions: [], appeared: version.modified)
        let before = entry.current
        if version.id == "null" { entry.versions.removeAll { $0.id == "null" } }
        entry.versions.append(version)
        if before == nil { entry.appeared = version.modified }
        if let before, staleFor > 0 { entry.previous = (before, version.modified.addingTimeInterval(staleFor)) }
        self[key] = entry
    }

    mutating func removeAll() {
        keys = []
        entries = [:]
        uploads = [:]
    }
}
