import CLinux
import Glibc

/// A named value that a file system keeps beside a file or directory.
public struct ExtendedAttribute: Sendable, Hashable {
    /// With its namespace, like "user.origin" or "system.posix_acl_access".
    public var name: [UInt8]
    public var value: [UInt8]

    public init(name: [UInt8], value: [UInt8]) {
        self.name = name
        self.value = value
    }
}

/// The kernel's own limit for one value and for all names of a file: bytes.
private let attributeLimit = 65536

extension Descriptor {
    /// All attributes that this process may see, sorted by name.
    func attributes() throws(SystemError) -> [ExtendedAttribute] {
        var found: [ExtendedAttribute] = []
        for name in try attributeNames() {
            do throws(SystemError) {
                found.append(ExtendedAttribute(name: name, value: try attribute(name)))
            } catch {
                // Removed since it was listed.
                guard error.errno == ENODATA else { throw error }
            }
        }
        return found.sorted { $0.name.lexicographicallyPrecedes($1.name) }
    }

    func attributeNames() throws(SystemError) -> [[UInt8]] {
        // Nearly every file has none, and one call says so.
        guard try attributeNamesLength() > 0 else { return [] }
        let names = try withBytes(capacity: attributeLimit) { buffer throws(SystemError) in
            try call("list attributes of") {
                bgb_list_attributes($0, buffer.assumingMemoryBound(to: CChar.self).baseAddress, buffer.count)
            }
        }
        return names.split(separator: 0).map { Array($0) }
    }

    /// Bytes of the list of names; 0 where the file system knows no attributes.
    private func attributeNamesLength() throws(SystemError) -> Int {
        do throws(SystemError) {
            return try call("list attributes of") { bgb_list_attributes($0, nil, 0) }
        } catch {
            guard error.errno == EOPNOTSUPP else { throw error }
            return 0
        }
    }

    private func attribute(_ name: [UInt8]) throws(SystemError) -> [UInt8] {
        try withBytes(capacity: attributeLimit) { buffer throws(SystemError) in
            try terminated(name) { name throws(SystemError) in
                try call("read attributes of") { bgb_get_attribute($0, name, buffer.baseAddress, buffer.count) }
            }
        }
    }

    func setAttribute(_ attribute: ExtendedAttribute) throws(SystemError) {
        try terminated(attribute.name) { name throws(SystemError) in
            _ = try attribute.value.withUnsafeBufferPointer { value throws(SystemError) in
                try call("set attribute") { bgb_set_attribute($0, name, value.baseAddress, value.count) }
            }
        }
    }

    func removeAttribute(_ name: [UInt8]) throws(SystemError) {
        _ = try terminated(name) { name throws(SystemError) in
            try call("remove attribute") { bgb_remove_attribute($0, name) }
        }
    }
}
