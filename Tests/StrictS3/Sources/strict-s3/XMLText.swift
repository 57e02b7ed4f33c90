/// Writes XML; enough for S3's answers, which have no attributes but xmlns.
struct XMLText {
    static let namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

    private(set) var text = ""

    static func document(_ root: String, namespace: String? = namespace, _ build: (inout XMLText) -> Void) -> String {
        var xml = XMLText()
        xml.text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        xml.text += namespace.map { "<\(root) xmlns=\"\($0)\">" } ?? "<\(root)>"
        build(&xml)
        xml.text += "</\(root)>"
        return xml.text
    }

    mutating func element(_ name: String, _ value: String) {
        text += "<\(name)>"
        escape(value)
        text += "</\(name)>"
    }

    mutating func element(_ name: String, _ value: Int) { element(name, String(value)) }
    mutating func element(_ name: String, _ value: Bool) { element(name, value ? "true" : "false") }

    mutating func element(_ name: String, _ build: (inout XMLText) -> Void) {
        text += "<\(name)>"
        build(&self)
        text += "</\(name)>"
    }

    private mutating func escape(_ value: String) {
        for scalar in value.unicodeScalars {
            switch scalar {
            case "&": text += "&amp;"
            case "<": text += "&lt;"
            case ">": text += "&gt;"
            case "\"": text += "&quot;"
            case "\r": text += "&#13;"
            case _ where scalar.value < 0x20 && scalar != "\n" && scalar != "\t":
                text += "&#x\(String(scalar.value, radix: 16));"
            default: text.unicodeScalars.append(scalar)
            }
        }
    }

    /// The same document with a line for each element, as some stores write it.
    static func pretty(_ xml: String) -> String { xml.replacing("><", with: ">\n  <") }
}
