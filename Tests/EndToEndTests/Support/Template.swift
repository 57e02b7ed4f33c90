import BackupBase
import Foundation
import TestSupport
import Testing

/// A repository that is made once and copied, with a writer key beside it. Its
/// password is derived as cheaply as the format allows, where Python can seal a
/// key slot: opening takes 10 ms instead of 330.
enum Template {
    private static let made = Result {
        let workspace = try Workspace("template")
        Leftovers.removeAtExit(workspace.directory)
        _ = try workspace.writerKey()
        if let python = Reader.python {
            let result = try Program.run(
                "/usr/bin/env", [python, "-c", cheapen, workspace.repository, workspace.passwordFile])
            guard result.status == 0 else { throw BackupError(.failed, "cheapening the key slot: \(result.errors)") }
        }
        return workspace
    }

    static func copy(to workspace: Workspace) throws {
        let source = try made.get()
        let result = try Program.tool("cp", ["-a", source.repository, source.path("writer-key"), workspace.directory.path])
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

extension Workspace {
    /// A workspace with a copy of the template repository: not for tests that
    /// need two repositories.
    static func ready(_ label: String) throws -> Workspace {
        let workspace = try Workspace(label, initialize: false)
        try Template.copy(to: workspace)
        return workspace
    }
}
