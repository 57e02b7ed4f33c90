import BackupBase
import FoundationEssentials
import Glibc

/// The administrator's directory of units, in which a policy's drop-ins stand.
struct UnitDirectory {
    /// `/etc/systemd/system`
    let path: String

    /// What has to be done for the directory to hold these drop-ins and no older ones.
    struct Plan: Equatable {
        var written: [UnitFile] = []
        var removed: [String] = []
        /// Neither made by bgbackup nor wanted to be touched: paths where a file would go.
        var foreign: [String] = []
    }

    /// - Parameter policy: whose earlier drop-ins go where they are not wanted any more
    func plan(_ units: PolicyUnits) throws -> Plan {
        var plan = Plan()
        let wanted = try units.files()
        for file in wanted {
            switch content(file.path) {
            case file.text?: break
            case let found? where !found.hasPrefix(PolicyUnits.mark): plan.foreign.append(file.path)
            default: plan.written.append(file)
            }
        }
        let kept = Set(wanted.map(\.path))
        for path in try earlier(units.policy) where !kept.contains(path) { plan.removed.append(path) }
        return plan
    }

    /// Carries a plan out: each file whole or not at all.
    /// - Throws: `.failed`
    func apply(_ plan: Plan) throws {
        for file in plan.written {
            let place = "\(path)/\(file.path)"
            let folder = "\(path)/\(file.path.split(separator: "/")[0])"
            guard mkdir(folder, 0o755) == 0 || errno == EEXIST else { throw failure("make", folder) }
            let temporary = place + ".new"
            let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o644)
            guard descriptor >= 0 else { throw failure("write", temporary) }
            let bytes = Array(file.text.utf8)
            let isWhole = write(descriptor, bytes, bytes.count) == bytes.count && fsync(descriptor) == 0
            let error = failure("write", place)
            close(descriptor)
            guard isWhole, rename(temporary, place) == 0 else {
                unlink(temporary)
                throw error
            }
        }
        for file in plan.removed {
            guard unlink("\(path)/\(file)") == 0 || errno == ENOENT else { throw failure("remove", "\(path)/\(file)") }
            // Goes where it is empty, and stays where the administrator has a drop-in too.
            rmdir("\(path)/\(file.split(separator: "/")[0])")
        }
    }

    /// Drop-ins that were made for a policy, whichever schedules it had.
    private func earlier(_ policy: String) throws -> [String] {
        let instance = try UnitName.instance(policy, nil)
        let folders = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
        return folders.filter { folder in
            ScheduledJob.Template.allCases.contains { template in
                let start = "bgbackup-\(template.rawValue)@\(instance)"
                return ["service", "timer"].contains { folder == "\(start).\($0).d" }
                    || folder.hasPrefix(start + ":") && (folder.hasSuffix(".service.d") || folder.hasSuffix(".timer.d"))
            }
        }.map { "\($0)/\(PolicyUnits.dropInName)" }.filter { content($0)?.hasPrefix(PolicyUnits.mark) == true }.sorted()
    }

    /// Up to 64 KiB of a file; nil where there is none.
    private func content(_ name: String) -> String? {
        let descriptor = open("\(path)/\(name)", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = max(read(descriptor, &bytes, bytes.count), 0)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    private func failure(_ verb: String, _ place: String) -> BackupError {
        BackupError(.failed, "cannot \(verb) \(place): \(String(cString: strerror(errno)))")
    }
}
