import BackupBase
import Foundation

/// scripts/s3_objects.py, started once: boto3 takes half a second to load.
final class ObjectMover: Sendable {
    static let shared = ObjectMover()

    private struct Pipes: @unchecked Sendable {
        // Unchecked: used with the lock held.
        let process = Process()
        let orders = Pipe()
        let answers = Pipe()

        init() throws {
            process.executableURL = URL(filePath: "/usr/bin/env")
            process.arguments = ["python3", Program.root + "scripts/s3_objects.py"]
            process.standardInput = orders
            process.standardOutput = answers
            try process.run()
        }
    }
    private let pipes = Locked<Pipes?>(nil)

    func perform(_ order: [String: Any]) throws -> Any {
        let line = try JSONSerialization.data(withJSONObject: order) + Data("\n".utf8)
        let answer = try pipes.withLock { pipes in
            let open = try pipes ?? Pipes()
            pipes = open
            try open.orders.fileHandleForWriting.write(contentsOf: line)
            var answer = Data()
            while answer.last != UInt8(ascii: "\n") {
                let more = open.answers.fileHandleForReading.availableData
                guard !more.isEmpty else {
                    pipes = nil
                    throw BackupError(.failed, "scripts/s3_objects.py ended")
                }
                answer += more
            }
            return answer
        }
        let document = try JSONSerialization.jsonObject(with: answer) as? [String: Any] ?? [:]
        guard let result = document["ok"] else {
            throw BackupError(.failed, "\(order["operation"] ?? "") through boto3: \(document["error"] ?? "")")
        }
        return result
    }
}
