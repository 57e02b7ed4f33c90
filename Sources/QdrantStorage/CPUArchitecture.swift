import Glibc

/// The kind of machine that a volume was written on.
public enum CPUArchitecture {
    /// As uname(2) names it: "x86_64", "aarch64"; nil where it does not.
    public static let own: String? = {
        var names = utsname()
        guard uname(&names) == 0 else { return nil }
        return withUnsafeBytes(of: names.machine) { bytes in
            let name = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            return name.isEmpty ? nil : name
        }
    }()

    /// What is known of starting on a volume of another kind of machine, for the
    /// operator: files are mapped as they are, and all that is said is "no
    /// guarantee" (qdrant#2220).
    public static let caution =
        "Qdrant's files are little-endian on both, its makers promise nothing across architectures, and no such start was "
        + "tested here: compare with 'bgbackup validate' before traffic moves."

    /// Nil where it is the same, or not known.
    public static func warning(of volume: String?) -> String? {
        guard let volume, let own, volume != own else { return nil }
        return "the volume was backed up on \(volume) and this machine is \(own). \(caution)"
    }
}
