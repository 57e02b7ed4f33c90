/// Lets global options stand before the command, as `bgbackup -r REPO snapshots`:
/// the parser knows them behind it only.
enum LeadingOptions {
    private static let withValue: Set<String> = [
        "-r", "--repository", "--password-file", "--limit-upload", "--limit-download",
    ]
    private static let flags: Set<String> = [
        "--json", "-q", "--quiet", "-v", "--verbose", "--no-progress", "-n", "--dry-run",
    ]

    /// The arguments with leading global options moved to the end (before "--").
    static func moved(_ arguments: [String]) -> [String] {
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            if withValue.contains(argument) {
                index += 2
            } else if flags.contains(argument)
                || withValue.contains(where: { $0.hasPrefix("--") && argument.hasPrefix("\($0)=") })
            {
                index += 1
            } else {
                break
            }
        }
        guard index > 0, index < arguments.count, !arguments[index].hasPrefix("-") else { return arguments }
        let rest = arguments[index...]
        let end = rest.firstIndex(of: "--") ?? rest.endIndex
        return Array(rest[..<end]) + arguments[..<index] + rest[end...]
    }
}
