import Foundation
import Glibc
import TestSupport

/// A FUSE file system with nothing in it, from a server that speaks the
/// kernel's protocol: Debian's plain installation has no program that mounts one.
final class FuseMount {
    let path: String
    private let process = Process()
    private let input = Pipe()
    private let folder: TemporaryDirectory

    static let isAvailable = Requirement.root && (try? FuseMount()) != nil

    /// Structures and numbers as in linux/fuse.h, 7.31.
    private static let script = """
        import ctypes, os, struct, sys, threading
        folder = sys.argv[1]
        path = (folder + "/mount").encode()
        os.mkdir(path)
        libc = ctypes.CDLL(None, use_errno=True)
        device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"bgbackup-test", path, b"fuse", 0, options) != 0: sys.exit(os.strerror(ctypes.get_errno()))
        INIT, GETATTR, STATFS, OPENDIR, READDIR, RELEASEDIR, DESTROY, LOOKUP = 26, 3, 17, 27, 28, 29, 38, 1
        def answer(opcode):
            if opcode == INIT: return struct.pack("<4I2H2I2HI28x", 7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1, 0, 0, 0)
            if opcode == GETATTR: return struct.pack("<QII6Q10I", 1, 0, 0, 1, *[0] * 8, 0o40755, 2, 0, 0, 0, 4096, 0)
            if opcode == STATFS: return struct.pack("<5Q4I24x", *[1 << 20] * 5, 4096, 255, 4096, 0)
            if opcode == OPENDIR: return bytes(16)
            if opcode in (READDIR, RELEASEDIR, DESTROY): return b""
            return 2 if opcode == LOOKUP else 38
        def serve():
            while True:
                try: request = os.read(device, 1 << 20)
                except OSError: return
                _, opcode, unique = struct.unpack_from("<IIQ", request)
                if opcode in (2, 36, 42): continue  # nobody waits for these
                reply = answer(opcode)
                error, data = (-reply, b"") if isinstance(reply, int) else (0, reply)
                os.write(device, struct.pack("<IiQ", 16 + len(data), error, unique) + data)
        threading.Thread(target=serve, daemon=True).start()
        os.listdir(path)
        open(folder + "/ready", "w").close()
        sys.stdin.read()
        libc.umount2(path, 2)
        """

    init() throws {
        folder = try TemporaryDirectory("fuse")
        path = folder("mount")
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = ["python3", "-c", Self.script, folder.path]
        process.standardInput = input
        process.standardError = FileHandle.nullDevice
        try process.run()
        while !FileManager.default.fileExists(atPath: folder("ready")) {
            guard process.isRunning else { throw CocoaError(.fileReadUnknown) }
            usleep(5000)
        }
    }

    /// Nothing is answered any more.
    func hang() { kill(process.processIdentifier, SIGSTOP) }

    deinit {
        kill(process.processIdentifier, SIGCONT)
        try? input.fileHandleForWriting.close()
        process.waitUntilExit()
    }
}
