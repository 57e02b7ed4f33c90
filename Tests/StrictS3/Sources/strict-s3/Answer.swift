import NIOCore

/// What goes back to a client, before faults are played with it.
struct Answer: Sendable {
    var status: Int
    var headers: [(String, String)] = []
    var body = ByteBuffer()
    /// Content-Length of a HEAD, which has no body to count.
    var announcedLength: Int?
    var errorCode: String?

    init(_ status: Int, headers: [(String, String)] = []) {
        self.status = status
        self.headers = headers
    }

    init(_ status: Int, xml: String, headers: [(String, String)] = []) {
        self.init(status, headers: headers + [("Content-Type", "application/xml")])
        body = ByteBuffer(string: xml)
    }

    init(_ status: Int, json: JSONValue) {
        self.init(status, headers: [("Content-Type", "application/json")])
        body = ByteBuffer(string: json.text + "\n")
    }

    /// The error document; a HEAD gets the status alone.
    init(_ error: S3Error, request: S3Request?, number: Int) {
        let resource = request?.rawPath ?? "/"
        let document = XMLText.document("Error", namespace: nil) { xml in
            xml.element("Code", error.code)
            xml.element("Message", error.message)
            for (name, value) in error.details { xml.element(name, value) }
            xml.element("Resource", resource)
            xml.element("RequestId", Self.requestID(number))
            xml.element("HostId", "strict-s3")
        }
        self.init(error.status, xml: document, headers: error.headers)
        errorCode = error.code
    }

    /// Sixteen hexadecimal digits, as AWS has them, and different for every request.
    static func requestID(_ number: Int) -> String {
        let digits = String(UInt64(number) &* 0x9E37_79B9_7F4A_7C15, radix: 16, uppercase: true)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}
