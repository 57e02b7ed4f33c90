import BackupBase
import Foundation

/// A repository that is made once for each kind of store and copied, with a
/// writer key beside it. Its password is derived as cheaply as the format
/// allows, where Python can seal a key slot: opening takes 10 ms instead of 330.
enum Template {
    private static let made = Locked<[S3Server.Kind?: Result<TemporaryDirectory, any Error>]>([:])

    /// A directory with the objects in `repository`, and the writer key.
    private static func folder(_ kind: S3Server.Kind?) throws -> TemporaryDirectory {
        try made.withLock { made in
            if let known = made[kind] { return try known.get() }
            let new = Result { try make(kind) }
            made[kind] = new
            return try new.get()
        }
    }

    private static func make(_ kind: S3Server.Kind?) throws -> TemporaryDirectory {
        let workspace = try Workspace("template", kind: kind)
        AtExit.remove(workspace.directory)
        let exported = try workspace.bgbackup("key", "export-writer", workspace.path("writer-key"))
        guard exported.status == 0 else { throw BackupError(.failed, "no writer key: \(exported.errors)") }
        if kind != nil { try workspace.store.download(to: workspace.repository) }
        if let python = Program.pythonWithCryptography {
            let result = try Program.run(
                "/usr/bin/env", [python, "-c", cheapen, workspace.repository, workspace.passwordFile])
            guard result.status == 0 else { throw BackupError(.failed, "cheapening the key slot: \(result.errors)") }
        }
        return workspace.directory
    }

    static func copy(to workspace: Workspace) throws {
        let source = try folder(workspace.server?.kind)
        // Whoever writes first claims the copy, where only one may write.
        try workspace.store.upload(from: source("repository"), omitting: ["v1/writers/", "tmp/"])
        let result = try Program.tool("cp", ["-a", source("writer-key"), workspace.directory.path])
        guard result.status == 0 else { throw BackupError(.failed, result.errors) }
    }

    /// Seals the key slot again, under scrypt with n = 1024 (docs/format.md).
    private static let cheapen = """
        import hashlib, json, os, pathlib, sys
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        root = pathlib.Path(sys.argv[1]) / "v1"
        password = pathlib.Path(sys.argv[2]).read_bytes().removesuffix(b"\\n")
        identity = bytes.fromhex(json.loads((root / "config.a").read_bytes().split(b"\\n")[0])["repository"])
        for path in (root / "keys").iterdir():
            slot = json.loads(path.read_bytes())
            bound = b"bgbackup v1 key" + identity + bytes.fromhex(path.name[:16])
            def seal(n, salt):
                return AESGCM(hashlib.scrypt(password, salt=salt, n=n, r=slot["r"], p=slot["p"], maxmem=2**31 - 1, dklen=32))
            secrets = seal(slot["n"], bytes.fromhex(slot["salt"])).decrypt(
                bytes.fromhex(slot["nonce"]), bytes.fromhex(slot["sealed"]), bound)
            salt, nonce = bytes(16), path.name[:12].encode()
            slot |= {"n": 1024, "salt": salt.hex(), "nonce": nonce.hex()}
            slot["sealed"] = seal(1024, salt).encrypt(nonce, secrets, bound).hex()
            path.chmod(0o600)
            path.write_text(json.dumps(slot))
        """
}

extension Program {
    /// The first Python here that has the module `cryptography`.
    public static let pythonWithCryptography = ["/usr/bin/python3", "python3"].first {
        (try? run("/usr/bin/env", [$0, "-c", "import cryptography"]).status) == 0
    }
}

extension Workspace {
    /// A workspace with a copy of the template repository: not for tests that
    /// need two repositories.
    public static func ready(_ label: String, kind: S3Server.Kind? = TestStore.kind) throws -> Workspace {
        let workspace = try Workspace(label, initialize: false, kind: kind)
        try Template.copy(to: workspace)
        return workspace
    }

    /// The same on a server of the test's own.
    public static func ready(_ label: String, server: S3Server, options: String = "") throws -> Workspace {
        let workspace = try Workspace(label, initialize: false, server: server, options: options)
        try Template.copy(to: workspace)
        return workspace
    }
}
