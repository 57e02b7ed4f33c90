import BackupBase

/// One profile: what both shared files say under its name.
struct Profile: Sendable {
    var name: String
    fileprivate(set) var values: [String: SecretText]

    init(_ name: String, _ values: [String: SecretText]) {
        self.name = name
        self.values = values
    }

    /// A setting's value; nil when it is missing or empty.
    func secret(_ setting: String) -> SecretText? { values[setting].flatMap { $0.isEmpty ? nil : $0 } }
    func text(_ setting: String) -> String? { secret(setting)?.reveal() }
    func has(_ setting: String) -> Bool { secret(setting) != nil }
}

/// The profiles of the shared credentials and config files.
struct ProfileSet: Sendable {
    private var profiles: [String: Profile] = [:]
    /// The files as they are named to people.
    let places: String

    subscript(name: String) -> Profile? { profiles[name] }

    /// Reads both files anew: keys in them are replaced while we run.
    init(_ settings: CredentialSettings) throws {
        let config = SharedFile(variable: "AWS_CONFIG_FILE", standard: "~/.aws/config", settings)
        let credentials = SharedFile(variable: "AWS_SHARED_CREDENTIALS_FILE", standard: "~/.aws/credentials", settings)
        places = "\(credentials.path) and \(config.path)"
        for (section, values) in try config.document().sections.sorted(by: { $0.key.utf8.count < $1.key.utf8.count }) {
            if let name = Self.profileName(section) { add(name, values) }
        }
        // Of a setting in both files, the credentials file's counts (AWS SDKs and Tools Reference Guide).
        for (section, values) in try credentials.document().sections { add(section, values) }
    }

    private mutating func add(_ name: String, _ values: [String: SecretText]) {
        profiles[name, default: Profile(name, [:])].values.merge(values) { $1 }
    }

    /// In the config file: `[default]`, `[profile x]`, `[profile "x y"]`; nil for
    /// `[sso-session x]` and other sections that are no profiles. Of `[default]` and
    /// `[profile default]` the longer one counts, hence the order above.
    private static func profileName(_ section: String) -> String? {
        if section == "default" { return section }
        guard section.hasPrefix("profile"), let space = section.dropFirst(7).first, space == " " || space == "\t" else {
            return nil
        }
        let name = section.dropFirst(7).trimmingSpace()
        for quote in ["\"", "'"] where name.count >= 2 && name.hasPrefix(quote) && name.hasSuffix(quote) {
            return String(name.dropFirst().dropLast())
        }
        return name
    }
}

/// One of the two files, where its variable says or in the standard place.
private struct SharedFile {
    let path: String
    private let location: String
    private let variable: String?

    init(variable: String, standard: String, _ settings: CredentialSettings) {
        let named = settings.variable(variable)
        self.variable = named == nil ? nil : variable
        path = named ?? standard
        location = settings.expanded(path)
    }

    func document() throws -> INIDocument {
        do {
            return try INIDocument(bytes())
        } catch let error as INIDocument.Malformed {
            throw CredentialError(
                "line \(error.line) of '\(path)' \(error.what)",
                hint: "Correct the line, or run `aws configure` to write the file.")
        }
    }

    /// A file that a variable names must be there; one in the standard place need
    /// not, nor must its directory be open to us (systemd's ProtectHome).
    private func bytes() throws -> [UInt8] {
        if let variable { return try CredentialFile.require(location, what: variable) }
        guard CredentialFile.isReachable(location) else { return [] }
        return try CredentialFile.read(location, what: "the shared file") ?? []
    }
}

/// The region that the selected profile names, or nil.
func profileRegion(_ settings: CredentialSettings) -> String? {
    (try? ProfileSet(settings))?[settings.profileName]?.text("region")
}
