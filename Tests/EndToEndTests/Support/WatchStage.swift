import Foundation
import Glibc
import TestSupport
import Testing

/// A policy that tells: metrics, a check and webhooks, in a workspace of its own.
struct WatchStage {
    let workspace: Workspace
    let volume: Volume
    var metrics: String { workspace.path("metrics/bgbackup.prom") }
    private var configuration: String { workspace.path("config") }

    init() throws {
        workspace = try Workspace("telling", kind: nil)
        volume = try Volume.small(workspace.path("volume"))
        for name in ["config/policies", "metrics", "bin"] {
            try FileManager.default.createDirectory(atPath: workspace.path(name), withIntermediateDirectories: true)
        }
        try systemctl("#!/bin/sh\nexit 1\n")
    }

    /// Everything comes from the policy; systemd is what the test says, or nobody.
    var extra: [String: String] {
        [
            "BGBACKUP_CONFIG": configuration, "BGBACKUP_REPOSITORY": "", "BGBACKUP_PASSWORD_FILE": "",
            "PATH": workspace.path("bin") + ":/usr/local/bin:/usr/bin:/bin",
        ]
    }

    func write(
        _ name: String = "demo", repository: String? = nil, check: String? = nil, hook: String? = nil,
        on events: String = "[success, warning, failure, recovered, drillFailed, damage]", logs: Bool = false, spec: String = "",
        metrics: Bool = true
    ) throws {
        var lines = [
            "apiVersion: bgbackup.io/v1", "kind: BackupPolicy", "metadata: {name: \(name)}", "spec:", "  node: node-7",
            "  source: {path: \"\(volume.path)\"}", "  capture: {method: none, acceptFuzzy: true}", "  repository:",
            "    url: \"\(repository ?? workspace.repository)\"", "    password: {file: \"\(workspace.passwordFile)\"}",
        ]
        lines += [
            "  schedules:", "    - {name: hourly, onCalendar: hourly}", "  retention: {keepLast: 2, maxDeleteRatio: 1}",
            "  check: {onCalendar: weekly, readData: 100%}",
        ]
        if check != nil || hook != nil { lines.append("  notifications:") }
        for (key, url) in [("check", check), ("hook", hook)] {
            guard let url else { continue }
            let file = workspace.path("\(name)-\(key)")
            try Data("\(url)\n".utf8).write(to: URL(filePath: file))
            chmod(file, 0o600)
            lines.append(
                key == "check"
                    ? "    healthchecks: {url: {file: \"\(file)\"}, sendLogs: \(logs)}"
                    : "    webhooks: [{url: {file: \"\(file)\"}, on: \(events), sendLogs: \(logs)}]")
        }
        if metrics { lines.append("  metrics: {textfile: \"\(self.metrics)\"}") }
        let text = lines.joined(separator: "\n") + "\n" + (spec.isEmpty ? "" : spec + "\n")
        try Data(text.utf8).write(to: URL(filePath: "\(configuration)/policies/\(name).yaml"))
    }

    /// A policy whose repository is on an S3 server that is none.
    func write(endpoint: String, hook: String) throws {
        let keys = workspace.path("keys")
        try Data("[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = CANARY-secret\n".utf8).write(
            to: URL(filePath: keys))
        chmod(keys, 0o600)
        let s3 = "{endpoint: \"\(endpoint)\", region: us-east-1, credentials: {file: \"\(keys)\"}, retryFor: 1s, timeout: 1s}"
        try write(repository: "s3://bucket/prefix", hook: hook)
        let file = "\(configuration)/policies/demo.yaml"
        let text = try String(contentsOfFile: file, encoding: .utf8)
        try Data(text.replacing("    password:", with: "    s3: \(s3)\n    password:").utf8).write(to: URL(filePath: file))
    }

    /// A systemd that says this of every timer.
    func systemd(load: String, active: String) throws {
        let script = """
            #!/bin/sh
            for unit; do case $unit in *.timer) printf 'Id=%s\\nLoadState=\(load)\\nActiveState=\(active)\\n\\n' "$unit" ;; esac; done
            """
        try systemctl(script)
    }

    private func systemctl(_ script: String) throws {
        try Data(script.utf8).write(to: URL(filePath: workspace.path("bin/systemctl")))
        chmod(workspace.path("bin/systemctl"), 0o755)
    }

    @discardableResult
    func expect(_ status: Int32, _ arguments: [String]) throws -> Program.Result {
        try workspace.expect(status, arguments, extra: extra)
    }

    @discardableResult
    func backup(_ status: Int32 = 0) throws -> Program.Result {
        try expect(status, ["backup", "--policy", "demo", "--schedule", "hourly"])
    }

    var samples: [String] {
        get throws { try String(contentsOfFile: metrics, encoding: .utf8).split(separator: "\n").map(String.init) }
    }

    /// The value of the one sample whose name and labels begin so.
    func sample(_ start: String) throws -> Double? {
        let found = try samples.filter { $0.hasPrefix(start) }
        return found.count == 1 ? found[0].split(separator: " ").last.flatMap { Double($0) } : nil
    }

    struct Status {
        let status: Int32
        let text: String
        let fields: [String: Any]
        var policies: [[String: Any]] { fields["policies"] as? [[String: Any]] ?? [] }
        var lights: [String] { policies.compactMap { $0["light"] as? String } }
        var codes: [String] {
            (policies + [fields]).flatMap { ($0["problems"] as? [[String: Any]] ?? []).compactMap { $0["code"] as? String } }
        }
    }

    func status(_ more: String...) throws -> Status {
        let json = try workspace.run(["status", "--json"] + more, extra: extra)
        let text = try workspace.run(["status"] + more, extra: extra)
        guard json.status == text.status else { throw CocoaError(.featureUnsupported) }
        return Status(status: json.status, text: text.output + text.errors, fields: json.document as? [String: Any] ?? [:])
    }
}
