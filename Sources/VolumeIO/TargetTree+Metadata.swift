import BackupBase
import CLinux
import Glibc

extension TargetTree {
    /// Sets owner, group, attributes and ACLs, mode, and last the modification
    /// time (ns). Of symbolic links owner and time only.
    ///
    /// What gives a program more rights than its user has, setuid and setgid
    /// bits and capabilities of regular files, is not restored but reported: a
    /// volume needs none, and a forged one could.
    ///
    /// - Parameter owner: user and group in place of the recorded ones
    /// - Returns: what could not be set, one text each
    public func setMetadata(
        _ path: [UInt8], kind: NodeKind, stat: FileStat, attributes: [ExtendedAttribute], owner: (UInt32, UInt32)?
    ) -> [String] {
        var problems: [String] = []
        func attempt(_ what: String, _ body: () throws(SystemError) -> Void) {
            do throws(SystemError) { try body() } catch { problems.append("\(what): \(explain(error.errno))") }
        }
        let owner = owner ?? (stat.owner, stat.group)
        attempt("metadata not set") { () throws(SystemError) in
            try checkRelative(path)
            switch kind {
            case .file, .directory:
                let node = try openForMetadata(path, kind)
                attempt("owner \(owner.0):\(owner.1) not set") { () throws(SystemError) in
                    try node.setOwner(owner)
                }
                problems += node.setAttributes(attributes, kind: kind)
                // After the ACL, whose mask it repeats, and after attributes
                // that a read-only mode would forbid.
                let refused = kind == .file ? stat.permissions & (S_ISUID | S_ISGID) : 0
                if refused != 0 {
                    problems.append("setuid or setgid bit not restored (mode 0\(String(stat.permissions, radix: 8)))")
                }
                attempt("mode not set") { () throws(SystemError) in
                    try node.call("set mode") { fchmod($0, stat.permissions & ~refused) }
                }
                attempt("time not set") { () throws(SystemError) in try node.setTime(stat.modified, path: nil) }
            case .symlink:
                try inParent(of: path) { parent, name throws(SystemError) in
                    guard try parent.stat(name).kind == .symlink else {
                        throw SystemError(operation: "open", errno: EEXIST)
                    }
                    attempt("owner \(owner.0):\(owner.1) not set") { () throws(SystemError) in
                        try parent.call("set owner") { fchownat($0, name, owner.0, owner.1, AT_SYMLINK_NOFOLLOW) }
                    }
                    attempt("time not set") { () throws(SystemError) in try parent.setTime(stat.modified, path: name) }
                }
            case .special:
                throw SystemError(operation: "open", errno: EOPNOTSUPP)
            }
        }
        return problems
    }

    /// Takes attributes away from a file or directory. Missing ones are fine.
    public func removeAttributes(_ path: [UInt8], kind: NodeKind, names: [[UInt8]]) throws(TargetError) {
        try attributed(path) { () throws(SystemError) in
            let node = try openForMetadata(path, kind)
            for name in names {
                do throws(SystemError) { try node.removeAttribute(name) } catch {
                    guard error.errno == ENODATA else { throw error }
                }
            }
        }
    }

    private func openForMetadata(_ path: [UInt8], _ kind: NodeKind) throws(SystemError) -> Descriptor {
        let type = kind == .directory ? O_DIRECTORY : 0
        let node = try root.openBeneath(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | type)
        guard try node.stat().kind == kind else { throw SystemError(operation: "open", errno: EEXIST) }
        return node
    }
}

private let accessLists = ["system.posix_acl_access", "system.posix_acl_default"].map { Array($0.utf8) }
private let capability = Array("security.capability".utf8)

extension Descriptor {
    /// Asks first: without privilege only "no change" is allowed, and even that
    /// would take the capabilities of the file away.
    fileprivate func setOwner(_ owner: (UInt32, UInt32)) throws(SystemError) {
        let now = try stat()
        if now.owner == owner.0, now.group == owner.1 { return }
        try call("set owner") { fchown($0, owner.0, owner.1) }
    }

    /// Sets what is wanted, and removes access lists that are not: new files
    /// inherit them where the target's own directory has a default list.
    fileprivate func setAttributes(_ attributes: [ExtendedAttribute], kind: NodeKind) -> [String] {
        var problems: [String] = []
        func attempt(_ name: [UInt8], _ body: () throws(SystemError) -> Void) {
            do throws(SystemError) { try body() } catch {
                problems.append("attribute \(printable(name)) not set: \(explain(error.errno))")
            }
        }
        for attribute in attributes {
            if attribute.name == capability, kind == .file {
                problems.append("attribute security.capability not restored")
                continue
            }
            attempt(attribute.name) { () throws(SystemError) in try setAttribute(attribute) }
        }
        let present = (try? attributeNames()) ?? []
        for name in accessLists where present.contains(name) && !attributes.contains(where: { $0.name == name }) {
            attempt(name) { () throws(SystemError) in try removeAttribute(name) }
        }
        return problems
    }

    /// Of the descriptor's own node, or of an entry of it; a link is not followed.
    fileprivate func setTime(_ modified: Int64, path: UnsafePointer<CChar>?) throws(SystemError) {
        let times = [timespec(tv_sec: 0, tv_nsec: BGB_UTIME_OMIT), timespecOf(modified)]
        try call("set time") { number in
            if let path { utimensat(number, path, times, AT_SYMLINK_NOFOLLOW) } else { futimens(number, times) }
        }
    }
}
