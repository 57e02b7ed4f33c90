import ArgumentParser
import BackupBase
import BackupRepository
import Operations

struct CheckCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Verify the repository.",
        discussion: """
            Without --read-data every configuration, key slot, index, pack trailer and manifest is read and compared \
            with the others. With it every frame is opened and every block verified, or the given share of them. \
            Exit status 17 means damage; each finding names the object, and the snapshot and path it concerns.
            """)

    @OptionGroup var global: GlobalOptions
    @Option(
        name: .customLong("read-data"), defaultAsFlag: "100%",
        help: ArgumentHelp("Read the packs' data, or a share of it.", valueName: "percent%"))
    var readData: String?

    struct Document: Encodable {
        let message_type = "summary"
        let schema = 1
        let damaged: Bool
        let snapshots: Int
        let files: Int
        let packs: Int
        let indexes: Int
        let frames_read: Int
        let bytes_read: Int64
        let bytes_stored: Int64
        let findings: [Finding]
    }

    @OptionGroup var policy: PolicyOption

    mutating func run() async throws {
        let job = JobRun(.check, policy: policy.policy, global)
        try await job.carried { try await run(job) }
    }

    private mutating func run(_ job: JobRun) async throws {
        let plan = try policy.plan()
        if let plan {
            if try global.isPaused(plan, job) { return }
            try global.take(plan)
            readData = readData ?? plan.policy.check?.readData.map { "\($0)%" }
        }
        let share = try readData.map { try Self.share($0) } ?? 0
        job.begin(plan, global)
        let repository = try await Session(options: global).open()
        let interactive = Terminal.isInteractive && !global.noProgress && !global.quiet && !global.json
        let report = try await Check(repository, readShare: share) { done, total in
            Main.service?.status("checking packs: \(done) of \(total)")
            if interactive { Terminal.raw("\r\u{1b}[Kchecking packs: \(done) of \(total)") }
        }.run()
        if interactive { Terminal.raw("\r\u{1b}[K") }
        // What a rotation brought meanwhile is not damaged: run again, with keys that open it.
        if report.isDamaged { try await repository.requireUnrotated() }
        try show(report)
        job.note(report, share)
        if report.isDamaged { throw ExitCode(BackupError.Code.damaged.exitStatus) }
    }

    private func show(_ report: CheckReport) throws {
        if global.json {
            return try Output.document(
                Document(
                    damaged: report.isDamaged, snapshots: report.snapshots, files: report.files, packs: report.packs,
                    indexes: report.indexes, frames_read: report.framesRead, bytes_read: report.bytesRead,
                    bytes_stored: report.bytesStored, findings: report.findings), lines: true)
        }
        for finding in report.findings where finding.severity == .damage || global.verbose {
            let place = [finding.snapshot.map { "snapshot \($0.prefix(8))" }, finding.path].compactMap { $0 }
            let sign = finding.severity == .damage ? "DAMAGE" : "notice"
            Output.line("\(sign)  \(([finding.object] + place).joined(separator: "  ")): \(finding.message)")
        }
        guard !global.quiet else { return }
        let data = report.framesRead > 0 ? ", \(report.framesRead) frames (\(formatBytes(report.bytesRead))) read" : ""
        Output.line(
            "\(report.snapshots) snapshots with \(report.files) files, \(report.packs) packs (\(formatBytes(report.bytesStored))), \(report.indexes) indexes\(data)"
        )
        let notices = report.findings.filter { $0.severity == .notice }.count
        if notices > 0, !global.verbose { Output.line("\(notices) notices; -v lists them") }
        Output.line(report.isDamaged ? "The repository is damaged." : "No damage found.")
    }

    private static func share(_ text: String) throws -> Double {
        let number = text.hasSuffix("%") ? String(text.dropLast()) : text
        guard let percent = Double(number), percent > 0, percent <= 100 else {
            throw BackupError(.usage, "'\(text)' is no share", hint: "Give --read-data, or --read-data=5%.")
        }
        return percent / 100
    }
}
