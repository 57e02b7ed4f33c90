import BackupEngine

/// Every key of a policy file. Reader, JSON Schema and docs/policy.md are made
/// from this, so that they cannot differ.
extension PolicyKey {
    public static let apiVersion = "bgbackup.io/v1"
    private static let year = 365.0 * 86_400

    public static let root: [PolicyKey] = [
        PolicyKey("apiVersion", .choice([apiVersion]), "Version of this form.", required: true),
        PolicyKey("kind", .choice(["BackupPolicy"]), "What the file describes.", required: true),
        PolicyKey(
            "metadata",
            .mapping([
                PolicyKey("name", .name, "The policy's name; also that of its systemd units.", required: true),
                PolicyKey("labels", .labels, "Free notes for people and tools; nothing reads them."),
            ]), "What the policy is called.", required: true),
        PolicyKey("spec", .mapping(spec), "What is protected, how, when and how long.", required: true),
    ]

    private static let spec: [PolicyKey] = [
        PolicyKey("paused", .boolean, "Scheduled runs end at once with status 0 and do nothing.", fallback: "false"),
        PolicyKey("node", .word, "Name of the node; left out, the host's."),
        PolicyKey("cluster", .word, "Name of the cluster that the node belongs to."),
        PolicyKey("tags", .list(.scalar(.word), 1...32), "Labels of its snapshots."),
        PolicyKey("source", source, "What is backed up.", required: true),
        PolicyKey("capture", capture, "How the volume is had at one moment.", implied: true),
        PolicyKey("repository", .mapping(repository), "Where snapshots go.", required: true),
        PolicyKey(
            "schedules", .list(.mapping(schedule), 1...32), "When backups are made, and how long each kind is kept.",
            required: true),
        PolicyKey(
            "retention", .mapping(retention),
            "What `forget` keeps: a snapshot stays when any rule, or its schedule's keepFor, keeps it.", implied: true),
        PolicyKey("limits", .mapping(limits), "How fast a backup may be; left out, as fast as it can."),
        PolicyKey("immutability", .mapping(immutability), "Object Lock of what is written (S3)."),
        PolicyKey("prune", .mapping(prune), "When space is freed; belongs on the host with the keeper's key."),
        PolicyKey("check", .mapping(check), "When the repository is verified."),
        PolicyKey("drill", .mapping(drill), "When a restore is rehearsed."),
        PolicyKey("copies", .list(.mapping(copy), 1...8), "Other places that get every snapshot too."),
        PolicyKey("notifications", .mapping(notifications), "Who is told how a run ended."),
        PolicyKey("metrics", .mapping(metrics), "Numbers for Prometheus."),
    ]

    private static let source = Kind.mapping(
        [
            PolicyKey("path", .path, "Qdrant's storage directory, or a raw image."),
            PolicyKey("device", .path, "A block device."),
            PolicyKey(
                "qdrant",
                .mapping([
                    PolicyKey("url", .address, "REST address of the server that writes there.", required: true),
                    PolicyKey("apiKey", .reference, "Its API key."),
                ]), "The running server, asked at each backup for what a drill compares."),
        ], exactlyOne: ["path", "device"])

    private static let capture = Kind.mapping([
        PolicyKey(
            "method", .choice(["auto", "btrfs", "reflink", "freeze", "lvm", "zfs", "pause", "none"]),
            "Which way; `none` copies the volume as it is.", fallback: "auto"),
        PolicyKey("maxFreeze", .duration(0.001...3600), "For how long writes may be held at the most.", fallback: "10s"),
        PolicyKey("keep", .boolean, "Keep the capture, so that the next backup reads only what changed.", fallback: "true"),
        PolicyKey("hook", .path, "Program that makes the snapshot for `freeze`."),
        PolicyKey(
            "acceptFuzzy", .boolean, "Said with `method: none`: such a snapshot may mix several moments.", fallback: "false"),
    ])

    private static let place = [
        PolicyKey("url", .repository, "A path, file:///path or s3://BUCKET/PREFIX.", required: true),
        PolicyKey("s3", .mapping(s3), "Options of an s3:// place."),
    ]

    private static let repository =
        place + [
            PolicyKey("password", .reference, "The password; left out, as `bgbackup` finds it everywhere else."),
            PolicyKey("writerKey", .reference, "The writer key, with which a node can back up and read nothing."),
        ]

    /// The options of an s3:// URL, as keys. Limits and locks have their own places.
    private static let s3: [PolicyKey] = [
        PolicyKey("endpoint", .word, "Address of the server, for stores other than AWS."),
        PolicyKey("region", .word, "The bucket's region; found out where it is not given."),
        PolicyKey("style", .choice(["virtual", "path"]), "How the bucket is addressed."),
        PolicyKey("profile", .word, "Profile of the AWS configuration files."),
        PolicyKey("credentials", .reference, "Keys, in the form of the AWS credentials file."),
        PolicyKey("caFile", .path, "PEM file of the authorities to trust instead of the system's."),
        PolicyKey("class", .word, "Storage class of packs."),
        PolicyKey("sse", .word, "Encryption by the store: AES256, aws:kms, or aws:kms:KEY."),
        PolicyKey("sseCustomerKey", .reference, "Key of 32 bytes for SSE-C."),
        PolicyKey("checksums", .boolean, "x-amz-checksum-sha256; left out, on AWS and with a lock."),
        PolicyKey("connections", .integer(1...256), "Requests at once.", fallback: "8"),
        PolicyKey("timeout", .duration(1...3600), "Without a byte for so long, a request is repeated.", fallback: "30s"),
        PolicyKey("retryFor", .duration(1...1800), "For how long a request is repeated.", fallback: "10m"),
        PolicyKey("multipartAbove", .size, "Larger uploads go in parts.", fallback: "5GiB"),
        PolicyKey("partSize", .size, "Size of such a part.", fallback: "64MiB"),
    ]

    /// The option of the URL that a key of `s3` becomes.
    static let s3Options: [String: String] = [
        "endpoint": "endpoint", "region": "region", "style": "style", "profile": "profile", "credentials": "credentials",
        "caFile": "ca-file", "class": "class", "sse": "sse", "sseCustomerKey": "sse-c-key", "checksums": "checksums",
        "connections": "connections", "timeout": "timeout", "retryFor": "retry-for", "multipartAbove": "multipart-above",
        "partSize": "part-size",
    ]

    private static let schedule = [
        PolicyKey("name", .name, "What it is called: `backup --schedule NAME`.", required: true),
        PolicyKey("onCalendar", .calendar, "When, as systemd.time(7) writes it.", required: true),
        PolicyKey("keepFor", .duration(3600...100 * year), "How long its snapshots are kept; left out, as `retention` says."),
        PolicyKey("tags", .list(.scalar(.word), 1...32), "Labels of its snapshots, beside the policy's."),
    ]

    private static let retention: [PolicyKey] = {
        let count = PolicyScalar.integer(1...100_000)
        let standard = RetentionPolicy()
        return [
            PolicyKey("keepLast", count, "The newest ones."),
            PolicyKey("keepHourly", count, "The newest of each of so many hours that have one (UTC)."),
            PolicyKey("keepDaily", count, "The newest of each of so many days."),
            PolicyKey("keepWeekly", count, "The newest of each of so many weeks (ISO)."),
            PolicyKey("keepMonthly", count, "The newest of each of so many months."),
            PolicyKey("keepYearly", count, "The newest of each of so many years."),
            PolicyKey("keepWithin", .duration(3600...100 * year), "All that are younger."),
            PolicyKey("minSnapshots", count, "So many of each volume stay at least.", fallback: "\(standard.minSnapshots)"),
            PolicyKey(
                "maxDeleteRatio", .ratio, "Share of a volume's snapshots that one run may take away.",
                fallback: "\(standard.maxDeleteRatio)"),
        ]
    }()

    private static let limits = [
        PolicyKey("upload", .rate, "Sent to the store (S3)."),
        PolicyKey("download", .rate, "Fetched from the store (S3)."),
        PolicyKey("read", .rate, "Read from the volume."),
        PolicyKey(
            "window",
            .mapping([
                PolicyKey("from", .timeOfDay, "Begin, in the node's local time.", required: true),
                PolicyKey("to", .timeOfDay, "End; earlier than `from`, it is the next day's.", required: true),
                PolicyKey("outside", .rate, "Of each of the three, outside the window.", required: true),
            ]), "When the limits above hold; which ones a run has is decided when it begins."),
    ]

    private static let immutability = [
        PolicyKey("mode", .choice(["governance", "compliance"]), "Kind of lock.", required: true),
        PolicyKey(
            "lockFor", .duration(86_400...100 * year),
            "How long each object is locked at the most: no longer than what needs it is kept.", required: true),
    ]

    private static let prune = [
        PolicyKey("onCalendar", .calendar, "When.", required: true),
        PolicyKey("grace", .duration(3600...year), "Between marking an object as unused and deleting it.", fallback: "24h"),
        PolicyKey(
            "maxUnused", .ratio, "Share of what is needed that may lie unused in partly used packs; beyond, they are repacked.",
            fallback: "0.1"),
    ]

    private static let check = [
        PolicyKey("onCalendar", .calendar, "When.", required: true),
        PolicyKey("readData", .percent, "Share of the data that is read too; left out, none."),
    ]

    private static let drill: [PolicyKey] = [
        PolicyKey("onCalendar", .calendar, "When.", required: true),
        PolicyKey("snapshot", .choice(["latest", "random", "oldest"]), "Which one.", fallback: "latest"),
        PolicyKey("target", .path, "Where it is restored to and removed again; left out, `scratch` in the state directory."),
        PolicyKey("image", .choice(["ext4", "xfs", "btrfs"]), "Restore onto a fresh file system in an image file."),
        PolicyKey("boot", .list(.scalar(.argument), 1...64), "How the database is started: program and arguments, no shell."),
        PolicyKey("bootTimeout", .duration(1...86_400), "How long the database may take to be ready.", fallback: "5m"),
        PolicyKey(
            "objectives",
            .mapping([
                PolicyKey("rto", .duration(1...year), "The drill fails if recovery takes longer."),
                PolicyKey("rpo", .duration(1...year), "It fails if the newest snapshot is older."),
            ]), "What recovery may cost."),
    ]

    private static let copy =
        [PolicyKey("name", .name, "What it is called.", required: true)] + place
        + [PolicyKey("onCalendar", .calendar, "When.", required: true)]

    private static let sendLogs = PolicyKey(
        "sendLogs", .boolean, "Send words of errors too, which name paths and hosts.", fallback: "false")

    private static let notifications = [
        PolicyKey(
            "healthchecks",
            .mapping([
                PolicyKey("url", .reference, "The check's address, which is a secret.", required: true),
                sendLogs,
            ]),
            "A dead man's switch: told of each start and end."),
        PolicyKey(
            "webhooks",
            .list(
                .mapping([
                    PolicyKey("url", .reference, "Where to POST.", required: true),
                    PolicyKey("on", .list(.scalar(.choice(events)), 1...8), "When.", required: true),
                    sendLogs,
                ]), 1...8), "Told of what is listed in `on`."),
    ]

    private static let events = ["success", "warning", "failure", "recovered", "drillFailed", "damage"]

    private static let metrics = [
        PolicyKey("textfile", .path, "File for the node exporter's textfile collector; must end in .prom.", required: true)
    ]
}
