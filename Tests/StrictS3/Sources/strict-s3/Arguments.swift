/// The command line. Four options do not need a parser from elsewhere.
struct Arguments {
    var portFile: String?
    var port = 0
    var config: String?
    var isQuiet = false
    var untilEOF = false

    static let usage = """
        usage: strict-s3 --port-file FILE [--port N] [--config FILE.json] [--until-eof] [--quiet]

        Serves S3 on 127.0.0.1 until SIGTERM, or with --until-eof until standard input ends.
        """

    struct Wrong: Error { let description: String }

    init(_ arguments: some Sequence<String>) throws {
        var rest = arguments.makeIterator()
        while let argument = rest.next() {
            func value() throws -> String {
                guard let value = rest.next() else { throw Wrong(description: "\(argument) needs a value") }
                return value
            }
            switch argument {
            case "--port-file": portFile = try value()
            case "--port":
                let text = try value()
                guard let number = Int(text), (0...65535).contains(number) else {
                    throw Wrong(description: "--port \(text) is no port")
                }
                port = number
            case "--config": config = try value()
            case "--quiet": isQuiet = true
            case "--until-eof": untilEOF = true
            default: throw Wrong(description: "unknown argument \(argument)")
            }
        }
    }
}
