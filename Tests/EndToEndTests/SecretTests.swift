import BackupBase
import Foundation
import Glibc
import TestSupport
import Testing

@Suite("Secrets stay where they are")
struct SecretTests {
    let workspace: Workspace
    let volume: Volume
    private let canary = "canary-\(UUID().uuidString)"

    init() throws {
        workspace = try Workspace("secret", initialize: false)
        try Data("\(canary)\n".utf8).write(to: URL(filePath: workspace.passwordFile))
        volume = try Volume.small(workspace.path("volume"))
    }

    @Test func `No password or key is printed or stored in any file but its own`() throws {
        try Data("second-\(canary)".utf8).write(to: URL(filePath: workspace.path("second")))
        let key = workspace.path("key")
        let commands = [
            ["init", "-v"], ["init", "--json"], ["key", "add", "--new-password-file", workspace.path("second"), "--json"],
            ["key", "list", "--json"], ["key", "export-writer", key, "-v"],
            ["backup", volume.path, "--writer-key", key, "-v", "--json"], ["backup", volume.path, "-v"],
            ["snapshots", "--json", "-v"],
            ["show", "latest", "--json"], ["check", "--json", "-v"], ["ls", "latest"], ["repair", "--json"],
            ["restore", "latest", "--target", workspace.path("restored"), "-v", "--json"],
            ["snapshots", "--password-file", key], ["backup", volume.path, "--writer-key", workspace.passwordFile],
        ]
        var printed = ""
        for command in commands {
            let result = try workspace.run(command)
            printed += result.output + result.errors
        }
        let text = try String(contentsOfFile: key, encoding: .utf8)
        let secret = try #require(text.split(separator: "\n").first { $0.hasPrefix("writer-secret: ") }?.dropFirst(15))
        #expect(secret.count == 64)
        #expect(!printed.contains(canary))
        #expect(!printed.contains(secret))
        if workspace.server != nil { try workspace.store.download(to: workspace.path("objects")) }
        // Nor the first bytes of either, as a hex dump would show them.
        #expect(!printed.contains(secret.prefix(16)))
        for word in [canary, String(secret)] {
            let found = try Volume(workspace.directory.path).shell("grep -rlaF -e '\(word)' . | sort")
            #expect(Set(found.split(separator: "\n")).isSubset(of: ["./password", "./second", "./key"]))
        }
    }

    @Test func `No password is in an argument or a variable of any process`() throws {
        try workspace.expect(0, ["init"])
        try volume.writeRandom("large", megabytes: 40)
        var other = workspace
        other.environment["BGBACKUP_PASSWORD_FILE"] = nil
        other.environment["BGBACKUP_PASSWORD_COMMAND"] = "sleep 0.2; cat '\(workspace.passwordFile)'"
        let backup = try other.start(["backup", volume.path, "-v"])
        var looks = 0
        var seen: [String] = []
        while backup.isRunning {
            for process in try FileManager.default.contentsOfDirectory(atPath: "/proc") where Int(process) != nil {
                for name in ["cmdline", "environ"] {
                    // Not URL: a file of /proc says that it is empty.
                    guard let bytes = try? readAll("/proc/\(process)/\(name)") else { continue }
                    if String(decoding: bytes, as: UTF8.self).contains(canary) { seen.append("\(process)/\(name)") }
                }
            }
            looks += 1
            usleep(10_000)
        }
        #expect(backup.wait() == 0)
        #expect(seen == [])
        #expect(looks > 5)
        #expect(try !backup.printed.contains(canary))
    }

    @Test func `A secret that is too long is none, not its beginning`() throws {
        let long = [UInt8](repeating: UInt8(ascii: "a"), count: 64 << 10)
        try Data(long).write(to: URL(filePath: workspace.passwordFile))
        try workspace.expect(0, ["init"])
        try workspace.expect(0, ["snapshots"])
        try Data(long + [0x62]).write(to: URL(filePath: workspace.passwordFile))
        let refused = try workspace.expect(12, ["snapshots"])
        #expect(refused.errors.contains("64 KiB"))
        var other = workspace
        other.environment["BGBACKUP_PASSWORD_FILE"] = workspace.directory.path
        #expect(try other.expect(12, ["snapshots"]).errors.contains("cannot read"))
    }

    private func readAll(_ path: String) throws -> [UInt8] {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw BackupError(.failed, "open") }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 64 << 10)
        let count = read(file, &bytes, bytes.count)
        return Array(bytes.prefix(max(count, 0)))
    }
}
