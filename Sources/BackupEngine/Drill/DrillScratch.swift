import BackupBase
import CLinux
import FoundationEssentials
import Glibc
import VolumeIO

/// A directory of one drill's own, where a volume is restored to and thrown away.
///
/// It is locked for as long as the drill runs: what a drill left that was killed
/// is known by its lock, which nobody holds, and removed by the next.
final class DrillScratch: Sendable {
    let path: String
    private let lock: Int32

    private static let prefix = "bgbackup-drill-"

    /// Where the volume goes.
    var volume: String { "\(path)/volume" }
    /// Where the engine runs, and may leave what it likes.
    var workplace: String { "\(path)/engine" }
    var log: String { "\(path)/engine.log" }

    /// - Throws: `.failed`
    init(in directory: String) throws {
        guard LocalFile.makeDirectory(directory), let place = Self.resolved(directory) else {
            throw Self.failed("make the scratch directory", directory)
        }
        path = "\(place)/\(Self.prefix)\(Ambient.system.random(6).hex)"
        guard mkdir(path, 0o700) == 0 else { throw Self.failed("make the scratch directory", path) }
        lock = open("\(path)/lock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard lock >= 0, bgb_flock(lock, LOCK_EX | LOCK_NB) == 0, mkdir(volume, 0o700) == 0, mkdir(workplace, 0o700) == 0
        else { throw Self.failed("make the scratch directory", path) }
    }

    deinit { close(lock) }

    /// Without links and the like: the kernel names what is mounted so.
    private static func resolved(_ directory: String) -> String? {
        guard let resolved = realpath(directory, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    /// Puts a fresh file system where the volume goes.
    func mount(_ kind: LoopVolume.Kind, size: Int64) async throws {
        do {
            _ = try await LoopVolume(image: "\(path)/image", at: volume, kind: kind, size: size)
        } catch {
            throw BackupError(.failed, "no fresh file system could be made", hint: error.hint, cause: error)
        }
    }

    /// Unmounts and removes all of it.
    /// - Throws: `.failed`; what could not be removed is removed by the next drill
    func remove() async throws { try await Self.remove(path) }

    /// Removes what drills left that are gone.
    /// - Returns: why something could not be removed
    static func removeLeftovers(in place: String) async -> [BackupError] {
        guard let directory = resolved(place) else { return [] }
        var problems: [BackupError] = []
        for name in LocalFile.names(in: directory) where name.hasPrefix(prefix) {
            let path = "\(directory)/\(name)"
            var status = stat()
            // In a directory that everybody may write to, others' names are none of ours.
            guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR, status.st_uid == geteuid() else { continue }
            let lock = open("\(path)/lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC)
            defer { if lock >= 0 { close(lock) } }
            // Without a lock it was made this moment, or killed at once: an hour tells.
            let isOld = time(nil) - status.st_mtim.tv_sec > 3600
            guard lock >= 0 ? bgb_flock(lock, LOCK_EX | LOCK_NB) == 0 : isOld else { continue }
            do { try await remove(path) } catch let error as BackupError { problems.append(error) } catch {}
        }
        return problems
    }

    private static func remove(_ path: String) async throws {
        do { try await LoopVolume.unmount("\(path)/volume") } catch {
            throw BackupError(.failed, "the scratch volume \(path)/volume is still in use", cause: error)
        }
        do { try FileManager.default.removeItem(atPath: path) } catch {
            throw BackupError(.failed, "the scratch directory \(path) cannot be removed", cause: error)
        }
    }

    private static func failed(_ what: String, _ path: String) -> BackupError {
        BackupError(
            .failed, "cannot \(what) \(path): \(String(cString: strerror(errno)))",
            hint: "Give --scratch a directory that can be written to.")
    }
}
