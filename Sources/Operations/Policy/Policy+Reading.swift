import BackupEngine

/// From what was read to what it means. Nodes are of their kinds, and what is
/// required is there: the reader saw to it.
extension Policy {
    init(_ root: PolicyNode) {
        let metadata = root["metadata"]
        let spec = root["spec"] ?? PolicyNode(value: .mapping([]), origin: .byDefault)
        name = metadata?["name"]?.text ?? ""
        labels = Dictionary((metadata?["labels"]?.members ?? []).map { ($0.name, $0.node.text ?? "") }, uniquingKeysWith: { $1 })
        paused = spec["paused"]?.boolean ?? false
        node = spec["node"]?.text
        cluster = spec["cluster"]?.text
        tags = Self.texts(spec["tags"])
        source = Source(spec["source"])
        capture = Capture(spec["capture"])
        repository = Place(spec["repository"])
        password = SecretReference(spec["repository"]?["password"])
        writerKey = SecretReference(spec["repository"]?["writerKey"])
        schedules = (spec["schedules"]?.elements ?? []).map { Schedule($0) }
        retention = RetentionPolicy(spec["retention"])
        limits = Limits(spec["limits"])
        immutability = spec["immutability"].map {
            Immutability(mode: $0["mode"]?.text ?? "", lockFor: $0["lockFor"]?.amount ?? 0)
        }
        prune = spec["prune"].map {
            Prune(
                onCalendar: $0["onCalendar"]?.text ?? "", grace: $0["grace"]?.amount ?? 86_400,
                maxUnused: $0["maxUnused"]?.amount ?? 0.1)
        }
        check = spec["check"].map { Check(onCalendar: $0["onCalendar"]?.text ?? "", readData: $0["readData"]?.amount) }
        drill = spec["drill"].map { Drill($0) }
        copies = (spec["copies"]?.elements ?? []).map {
            Copy(name: $0["name"]?.text ?? "", place: Place($0), onCalendar: $0["onCalendar"]?.text ?? "")
        }
        let notifications = spec["notifications"]
        healthchecks = SecretReference(notifications?["healthchecks"]?["url"])
        healthchecksGetLogs = notifications?["healthchecks"]?["sendLogs"]?.boolean ?? false
        webhooks = (notifications?["webhooks"]?.elements ?? []).compactMap { hook in
            SecretReference(hook["url"]).map {
                Webhook(url: $0, events: Self.texts(hook["on"]), sendLogs: hook["sendLogs"]?.boolean ?? false)
            }
        }
        textfile = spec["metrics"]?["textfile"]?.text
    }

    fileprivate static func texts(_ node: PolicyNode?) -> [String] { (node?.elements ?? []).compactMap(\.text) }
}

extension Policy.SecretReference {
    init?(_ node: PolicyNode?) {
        if let name = node?["credential"]?.text {
            self = .credential(name)
        } else if let path = node?["file"]?.text {
            self = .file(path)
        } else {
            return nil
        }
    }
}

extension Policy.Source {
    init(_ node: PolicyNode?) {
        path = node?["path"]?.text ?? node?["device"]?.text ?? ""
        isDevice = node?["device"] != nil
        qdrant = node?["qdrant"].map {
            Policy.Server(url: $0["url"]?.text ?? "", apiKey: Policy.SecretReference($0["apiKey"]))
        }
    }
}

extension Policy.Capture {
    init(_ node: PolicyNode?) {
        method = node?["method"]?.text ?? "auto"
        maxFreeze = node?["maxFreeze"]?.amount ?? 10
        keep = node?["keep"]?.boolean ?? true
        hook = node?["hook"]?.text
        acceptFuzzy = node?["acceptFuzzy"]?.boolean ?? false
    }
}

extension Policy.Place {
    init(_ node: PolicyNode?) {
        url = node?["url"]?.text ?? ""
        options = [:]
        let s3 = node?["s3"]
        for member in s3?.members ?? [] where !member.node.isDefault {
            guard let option = PolicyKey.s3Options[member.name], let value = Self.value(member.node) else { continue }
            options[option] = value
        }
        credentials = Policy.SecretReference(s3?["credentials"])
        customerKey = Policy.SecretReference(s3?["sseCustomerKey"])
    }

    /// A value as the URL takes it: seconds and bytes without a unit.
    static func value(_ node: PolicyNode) -> String? {
        switch node.value {
        case .text(let text): text
        case .quantity(_, let amount): amount == amount.rounded() ? "\(Int64(amount))" : "\(amount)"
        case .integer(let number): "\(number)"
        case .boolean(let flag): flag ? "on" : "off"
        case .number, .list, .mapping: nil
        }
    }
}

extension Policy.Schedule {
    init(_ node: PolicyNode) {
        name = node["name"]?.text ?? ""
        onCalendar = node["onCalendar"]?.text ?? ""
        keepFor = node["keepFor"]?.amount
        tags = Policy.texts(node["tags"])
        interval = (try? CalendarExpression(onCalendar))?.longestGap
    }
}

extension RetentionPolicy {
    init(_ node: PolicyNode?) {
        self.init()
        keepLast = node?["keepLast"]?.integer
        keepHourly = node?["keepHourly"]?.integer
        keepDaily = node?["keepDaily"]?.integer
        keepWeekly = node?["keepWeekly"]?.integer
        keepMonthly = node?["keepMonthly"]?.integer
        keepYearly = node?["keepYearly"]?.integer
        keepWithin = node?["keepWithin"]?.amount
        minSnapshots = node?["minSnapshots"]?.integer ?? minSnapshots
        maxDeleteRatio = node?["maxDeleteRatio"]?.amount ?? maxDeleteRatio
    }
}

extension Policy.Limits {
    init(_ node: PolicyNode?) {
        func rate(_ node: PolicyNode?) -> Int? { node?.amount.map { Int($0) } }
        upload = rate(node?["upload"])
        download = rate(node?["download"])
        read = rate(node?["read"])
        window = node?["window"].map {
            Policy.Window(
                from: Int($0["from"]?.amount ?? 0), to: Int($0["to"]?.amount ?? 0), outside: rate($0["outside"]) ?? 1024)
        }
    }
}

extension Policy.Drill {
    init(_ node: PolicyNode) {
        onCalendar = node["onCalendar"]?.text ?? ""
        snapshot = node["snapshot"]?.text ?? "latest"
        target = node["target"]?.text
        image = node["image"]?.text
        boot = Policy.texts(node["boot"])
        bootTimeout = node["bootTimeout"]?.amount ?? 300
        recoveryTime = node["objectives"]?["rto"]?.amount
        recoveryPoint = node["objectives"]?["rpo"]?.amount
    }
}
