import BackupBase
import Glibc

/// What decides where keys come from. Nothing secret is in it but the paths of files.
struct CredentialSettings: Sendable {
    /// A variable's value; the process's own unless a test has its own.
    var environment: @Sendable (String) -> String? = { name in getenv(name).map { String(cString: $0) } }
    /// A profile's name as the user gave it; else AWS_PROFILE or "default".
    var profile: String?
    /// A file with keys (`KeyFile`), which wins over everything else.
    var keyFile: String?
    /// The region whose STS is asked for a role's keys.
    var region: String?
    /// Nanoseconds since 1970, by the clock that the keys' ends are compared with.
    var now: @Sendable () -> Int64 = Ambient.system.now
    /// Seconds a `credential_process` may take.
    var processTimeLimit = 60.0
    /// Seconds before a question is asked a second time; twice that before the third, and so on.
    var retryDelay = 0.2

    init(profile: String? = nil, keyFile: String? = nil, region: String? = nil) {
        self.profile = profile
        self.keyFile = keyFile
        self.region = region
    }

    /// A variable that is set and not empty: an empty one counts as unset, as in every AWS SDK.
    func variable(_ name: String) -> String? {
        environment(name).flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The profile somebody named, and whoever named it.
    var namedProfile: (name: String, by: String)? {
        if let profile { return (profile, "the profile option") }
        return variable("AWS_PROFILE").map { ($0, "AWS_PROFILE") }
    }

    var profileName: String { namedProfile?.name ?? "default" }

    /// The path with a leading "~" replaced, as the AWS tools do it.
    func expanded(_ path: String) -> String {
        path == "~" || path.hasPrefix("~/") ? home + path.dropFirst() : path
    }

    /// $HOME, or what the user database says: a service may run without the variable.
    private var home: String {
        if let home = variable("HOME") { return home }
        var entry = passwd()
        var found: UnsafeMutablePointer<passwd>?
        var memory = [CChar](repeating: 0, count: 16384)
        guard getpwuid_r(getuid(), &entry, &memory, memory.count, &found) == 0, found != nil else { return "/" }
        return String(cString: entry.pw_dir)
    }
}
