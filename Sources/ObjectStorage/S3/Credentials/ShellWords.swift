/// A command line split into words as Python's `shlex.split` does it, which is
/// what the AWS CLI starts `credential_process` with: quotes and backslashes, and
/// nothing else of a shell (no variables, no "~", no pipes).
struct ShellWords {
    enum Malformed: String, Error {
        case openQuote = "has a quote that is not closed"
        case trailingBackslash = "ends with a backslash"
    }

    private var words: [String] = []
    /// The word at hand; nil between words, "" after an empty pair of quotes.
    private var word: String.UnicodeScalarView?
    private var quote: Unicode.Scalar?
    private var isEscaped = false

    static func split(_ text: String) throws -> [String] {
        var splitter = ShellWords()
        for scalar in text.unicodeScalars { splitter.take(scalar) }
        if splitter.isEscaped { throw Malformed.trailingBackslash }
        if splitter.quote != nil { throw Malformed.openQuote }
        splitter.endWord()
        return splitter.words
    }

    private mutating func take(_ scalar: Unicode.Scalar) {
        if isEscaped {
            isEscaped = false
            // Between double quotes a backslash hides only a quote or another one.
            if quote != nil, scalar != "\"", scalar != "\\" { append("\\") }
            return append(scalar)
        }
        switch (scalar, quote) {
        case ("\\", nil), ("\\", "\""):
            isEscaped = true
        case (_, .some(scalar)):
            quote = nil
        case ("'", nil), ("\"", nil):
            quote = scalar
            if word == nil { word = .init() }
        case (" ", nil), ("\t", nil), ("\r", nil), ("\n", nil):
            endWord()
        default:
            append(scalar)
        }
    }

    private mutating func append(_ scalar: Unicode.Scalar) { word = (word ?? .init()) + CollectionOfOne(scalar) }

    private mutating func endWord() {
        if let word { words.append(String(word)) }
        word = nil
    }
}
