/// Changes between Qdrant's versions that clients or operators notice.
struct BreakingChange {
    /// The first version with it.
    let since: ServerVersion
    let text: String

    static let all = [
        BreakingChange(since: ServerVersion(1, 16), text: "POST /locks is gone (#7449)"),
        BreakingChange(since: ServerVersion(1, 16), text: "init_from of a new collection is gone (#7454)"),
        BreakingChange(since: ServerVersion(1, 16), text: "vectors_count of collection info is gone (#7244)"),
        BreakingChange(since: ServerVersion(1, 18), text: "files of RocksDB are not read any more (#8529)"),
        // Release notes of qdrant-js 1.19.0.
        BreakingChange(
            since: ServerVersion(1, 19),
            text: "the REST calls search, recommend and discover left the API: clients have to use query"),
    ]

    /// What a client meets that goes from one version to another.
    static func between(_ one: ServerVersion, _ other: ServerVersion) -> [String] {
        let (older, newer) = (min(one, other), max(one, other))
        return all.filter { $0.since > older && $0.since <= newer }.map { "\($0.since.major).\($0.since.minor): \($0.text)" }
    }
}
