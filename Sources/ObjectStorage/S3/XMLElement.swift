import CExpat

/// An element of an S3 answer: a tree of names and texts, built by expat from a
/// document of bounded size, depth and number of elements. Attributes and
/// namespaces mean nothing in S3's answers and are dropped.
final class XMLElement {
    let name: String
    fileprivate(set) var text = ""
    fileprivate(set) var children: [XMLElement] = []

    fileprivate init(_ name: String) { self.name = name }

    func first(_ name: String) -> XMLElement? { children.first { $0.name == name } }
    func all(_ name: String) -> [XMLElement] { children.filter { $0.name == name } }
    /// The text of a child, or nil where there is none.
    subscript(_ name: String) -> String? { first(name)?.text }

    /// Of one page of a listing: 1000 objects of some ten elements.
    private static let elementLimit = 50_000
    private static let depthLimit = 16

    /// The document's root, or nil for what is no XML within the bounds.
    static func parse(_ bytes: UnsafeRawBufferPointer) -> XMLElement? {
        guard bytes.count > 0, bytes.count <= 16 << 20, let parser = XML_ParserCreate("UTF-8") else { return nil }
        defer { XML_ParserFree(parser) }
        let building = Building(parser)
        XML_SetUserData(parser, Unmanaged.passUnretained(building).toOpaque())
        XML_SetElementHandler(
            parser, { data, name, _ in Building.of(data).open(name) }, { data, _ in Building.of(data).close() })
        XML_SetCharacterDataHandler(parser) { data, text, count in Building.of(data).add(text, Int(count)) }
        // Entities of a document's own are a way to make little input large; S3 has none.
        XML_SetStartDoctypeDeclHandler(parser) { data, _, _, _, _ in Building.of(data).stop() }
        let status = XML_Parse(parser, bytes.assumingMemoryBound(to: CChar.self).baseAddress, Int32(bytes.count), 1)
        return withExtendedLifetime(building) { status == XML_STATUS_OK && !building.isStopped ? building.root : nil }
    }

    private final class Building {
        var root: XMLElement?
        var open: [XMLElement] = []
        var count = 0
        var isStopped = false
        let parser: XML_Parser

        init(_ parser: XML_Parser) { self.parser = parser }

        static func of(_ pointer: UnsafeMutableRawPointer?) -> Building {
            Unmanaged<Building>.fromOpaque(pointer!).takeUnretainedValue()
        }

        func stop() {
            isStopped = true
            _ = XML_StopParser(parser, 0)
        }

        func open(_ name: UnsafePointer<XML_Char>?) {
            count += 1
            guard let name, count <= elementLimit, open.count < depthLimit else { return stop() }
            let element = XMLElement(String(cString: name))
            open.last?.children.append(element)
            if root == nil { root = element }
            open.append(element)
        }

        func close() { _ = open.popLast() }

        func add(_ text: UnsafePointer<XML_Char>?, _ count: Int) {
            guard let text, let last = open.last else { return }
            last.text += String(decoding: UnsafeRawBufferPointer(start: text, count: count), as: UTF8.self)
        }
    }
}
