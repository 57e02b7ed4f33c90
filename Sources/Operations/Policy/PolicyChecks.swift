import BackupBase
import BackupEngine
import ObjectStorage

/// What only several values together tell: combinations that cannot work, and
/// such as are worth a warning.
struct PolicyChecks {
    let policy: Policy
    let spec: PolicyNode
    private var reader: PolicyReader
    var issues: [PolicyIssue] { reader.issues }

    init(_ policy: Policy, _ root: PolicyNode, file: String) {
        self.policy = policy
        spec = root["spec"] ?? root
        reader = PolicyReader(file: file)
    }

    mutating func run() {
        capture()
        place("spec.repository", policy.repository, spec["repository"], spec.mark("repository"), policy.immutability)
        for (index, copy) in policy.copies.enumerated() {
            let node = spec["copies"]?.elements[index]
            place("spec.copies[\(index)]", copy.place, node, node?.origin ?? .byDefault, nil)
        }
        copies()
        schedules()
        immutability()
        limits()
        retention()
        drill()
        files()
    }

    private mutating func complain(_ origin: PolicyOrigin, _ message: String, _ suggestion: String? = nil) {
        reader.complain(origin, message, suggestion)
    }
    private mutating func warn(_ origin: PolicyOrigin, _ message: String, _ suggestion: String? = nil) {
        reader.complain(origin, message, suggestion, .warning)
    }

    // MARK: - Source

    private mutating func capture() {
        guard let node = spec["capture"], !node.isDefault else { return }
        let capture = policy.capture
        if capture.method == "none", !capture.acceptFuzzy {
            complain(
                node.mark("method"), "capture method none copies a live volume, which may mix several moments",
                "write acceptFuzzy: true if that will do, or method: auto")
        }
        if capture.method != "none", capture.acceptFuzzy {
            warn(node.mark("acceptFuzzy"), "acceptFuzzy does nothing with method \(capture.method)", "leave it out")
        }
        if capture.method == "freeze", capture.hook == nil {
            complain(
                node.mark("method"), "capture method freeze needs a program that makes the snapshot", "add hook: /path/to/program"
            )
        }
        if capture.method != "freeze", capture.hook != nil {
            complain(
                node.mark("hook"), "capture.hook belongs to method freeze, not to \(capture.method)",
                "did you mean method: freeze?")
        }
    }

    private func isInside(_ path: String, _ directory: String) -> Bool {
        path == directory || path.hasPrefix(directory == "/" ? "/" : directory + "/")
    }

    // MARK: - Places

    private mutating func place(
        _ name: String, _ place: Policy.Place, _ node: PolicyNode?, _ origin: PolicyOrigin, _ lock: Policy.Immutability?
    ) {
        guard let node else { return }
        if let path = place.localPath {
            if node["s3"] != nil {
                complain(
                    node.mark("s3"), "\(name).s3 belongs to an s3:// place, and \(shown(place.url)) is a directory", "remove it")
            }
            if !policy.source.isDevice, isInside(path, policy.source.path) {
                complain(
                    node.mark("url"), "\(name).url is inside the source \(policy.source.path)",
                    "a backup must not back itself up; take another path")
            } else if !policy.source.isDevice, isInside(policy.source.path, path) {
                complain(node.mark("url"), "the source \(policy.source.path) is inside \(name).url", "take another path")
            }
            return
        }
        // What S3Place says of each part tells which of them is wrong.
        if let error = Self.refusal(place.url) {
            return complain(node.mark("url"), "\(name).url: \(error.message)", error.suggestion)
        }
        let count = issues.count
        for member in node["s3"]?.members ?? [] {
            guard let option = PolicyKey.s3Options[member.name], let value = Policy.Place.value(member.node),
                !member.node.isDefault
            else { continue }
            var alone = Policy.Place(url: place.url, options: [option: value])
            // "path" says nothing without an endpoint.
            if let endpoint = place.options["endpoint"] { alone.options["endpoint"] = alone.options["endpoint"] ?? endpoint }
            if let error = Self.refusal(alone.url(locked: nil) { _ in "/" }) {
                complain(member.node.origin, "\(name).s3.\(member.name): \(error.message)", error.suggestion)
            }
        }
        guard issues.count == count else { return }
        if place.options["sse"] != nil, place.customerKey != nil {
            return complain(
                node["s3"]?.mark("sseCustomerKey") ?? origin, "\(name).s3 has both sse and sseCustomerKey", "give one of them")
        }
        if let error = Self.refusal(place.url(locked: lock) { _ in "/" }) {
            complain(node["s3"]?.origin ?? node.mark("url"), "\(name): \(error.message)", error.suggestion)
        }
    }

    private static func refusal(_ url: String) -> PolicyComplaint? {
        do {
            _ = try S3Place(url: url, environment: { _ in nil })
            return nil
        } catch let error as StoreError {
            return PolicyComplaint(error.detail, error.hint.map { String($0.prefix(1).lowercased() + $0.dropFirst()) })
        } catch {
            return PolicyComplaint("\(error)")
        }
    }

    private mutating func copies() {
        var names: Set<String> = []
        for (copy, node) in zip(policy.copies, spec["copies"]?.elements ?? []) {
            if !names.insert(copy.name).inserted {
                complain(
                    node["name"]?.origin ?? node.origin, "two copies are named \(shown(copy.name))", "give each a name of its own"
                )
            }
            if copy.place.url == policy.repository.url, copy.place.options["endpoint"] == policy.repository.options["endpoint"] {
                complain(
                    node["url"]?.origin ?? node.origin, "the copy \(shown(copy.name)) is the repository itself",
                    "take another place")
            }
        }
    }

    // MARK: - Schedules

    private mutating func schedules() {
        var names: [String: PolicyOrigin] = [:]
        for (schedule, node) in zip(policy.schedules, spec["schedules"]?.elements ?? []) {
            let origin = node["name"]?.origin ?? node.origin
            if let first = names[schedule.name] {
                complain(origin, "two schedules are named \(shown(schedule.name))", "the first is in \(first)")
            }
            names[schedule.name] = names[schedule.name] ?? origin
            if let keepFor = schedule.keepFor, let interval = schedule.interval, keepFor < interval {
                warn(
                    node["keepFor"]?.origin ?? node.origin,
                    "keepFor is shorter than the \(PolicyScalar.words(interval)) between two runs of \(shown(schedule.name)): for a while there is none of its snapshots"
                )
            }
        }
    }

    private mutating func immutability() {
        guard let lock = policy.immutability, let node = spec["immutability"] else { return }
        guard policy.repository.isS3 else {
            return complain(
                spec.mark("immutability"), "immutability needs an object store that locks, and the repository is a directory",
                "use an s3:// repository, or remove it")
        }
        let kept = policy.schedules.compactMap(\.keepFor) + [policy.retention.keepWithin].compactMap { $0 }
        if let longest = kept.max(), lock.lockFor > longest, kept.count >= policy.schedules.count {
            warn(
                node["lockFor"]?.origin ?? node.origin,
                "lockFor is longer than anything is kept (\(PolicyScalar.words(longest))): space stays locked that nobody needs",
                "did you mean a lockFor of up to \(PolicyScalar.words(longest))?")
        }
    }

    private mutating func limits() {
        guard let node = spec["limits"] else { return }
        if let window = policy.limits.window, window.from == window.to {
            complain(node["window"]?["to"]?.origin ?? node.origin, "the window ends when it begins", "give two different times")
        }
        let limits = policy.limits
        if limits.window != nil, limits.upload == nil, limits.download == nil, limits.read == nil { return }
        if !policy.repository.isS3, limits.upload != nil || limits.download != nil {
            let name = limits.upload != nil ? "upload" : "download"
            warn(node.mark(name), "limits.\(name) does nothing with a repository in a directory", "did you mean limits.read?")
        }
    }

    private mutating func retention() {
        guard policy.prune != nil, policy.retention.isEmpty, policy.schedules.allSatisfy({ $0.keepFor == nil }) else { return }
        complain(
            spec.mark("prune"), "prune frees nothing: no rule of retention and no keepFor lets a snapshot go",
            "add retention: {keepDaily: 7}, or keepFor to a schedule")
    }

    // MARK: - Drill and files

    private mutating func drill() {
        guard let drill = policy.drill, let node = spec["drill"] else { return }
        if let target = drill.target {
            if !policy.source.isDevice, isInside(target, policy.source.path) {
                complain(node.mark("target"), "drill.target is inside the source \(policy.source.path)", "take another path")
            } else if let path = policy.repository.localPath, isInside(target, path) {
                complain(node.mark("target"), "drill.target is inside the repository \(path)", "take another path")
            }
        }
        let intervals = policy.schedules.map(\.interval)
        if let objective = drill.recoveryPoint, let shortest = intervals.compactMap({ $0 }).min(), !intervals.contains(nil),
            objective < shortest
        {
            complain(
                node["objectives"]?["rpo"]?.origin ?? node.origin,
                "an rpo of \(PolicyScalar.words(objective)) cannot be met: the most frequent schedule leaves up to \(PolicyScalar.words(shortest)) between two backups",
                "back up more often, or raise it above \(PolicyScalar.words(shortest))")
        }
    }

    private mutating func files() {
        guard let path = policy.textfile, let node = spec["metrics"] else { return }
        if !path.hasSuffix(".prom") {
            complain(
                node["textfile"]?.origin ?? node.origin,
                "metrics.textfile does not end in .prom, and the node exporter reads nothing else",
                "did you mean '\(printable(path.utf8)).prom'?")
        }
        if !policy.source.isDevice, isInside(path, policy.source.path) {
            complain(
                node["textfile"]?.origin ?? node.origin, "metrics.textfile is inside the source \(policy.source.path)",
                "take another path")
        }
    }
}
