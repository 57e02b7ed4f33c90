/// A key of a policy file: one line of the table that reader, schema and
/// document are made from (`PolicyKey.root`).
public struct PolicyKey: Sendable {
    public indirect enum Kind: Sendable {
        case scalar(PolicyScalar)
        /// - Parameters:
        ///   - exactlyOne: of these names one has to be there, and only one
        case mapping([PolicyKey], exactlyOne: [String] = [])
        case list(Kind, ClosedRange<Int>)
        /// Names that the operator chooses, each with a text.
        case labels
        /// Where a secret is, never the secret.
        case reference
    }

    public let name: String
    public let kind: Kind
    /// One sentence for the document and the schema.
    public let about: String
    public let isRequired: Bool
    /// As a file would write it; nil: left out, it means what `about` says.
    public let fallback: String?
    /// Of a mapping: there with its defaults, also where the file leaves it out.
    public let isImplied: Bool

    init(
        _ name: String, _ kind: Kind, _ about: String, required: Bool = false, fallback: String? = nil, implied: Bool = false
    ) {
        self.name = name
        self.kind = kind
        self.about = about
        isRequired = required
        self.fallback = fallback
        isImplied = implied
    }

    init(_ name: String, _ scalar: PolicyScalar, _ about: String, required: Bool = false, fallback: String? = nil) {
        self.init(name, .scalar(scalar), about, required: required, fallback: fallback)
    }

    /// The keys of a reference to a secret.
    static let reference: [PolicyKey] = [
        PolicyKey("credential", .credential, "Name of a systemd credential (LoadCredential=, LoadCredentialEncrypted=)."),
        PolicyKey("file", .path, "File that holds it, readable by its owner only."),
    ]

    /// Every key below these, with its path, in the table's order: lists as `name[]`.
    static func flattened(_ keys: [PolicyKey], below prefix: String = "") -> [(path: String, key: PolicyKey)] {
        keys.flatMap { key -> [(path: String, key: PolicyKey)] in
            var path = prefix.isEmpty ? key.name : "\(prefix).\(key.name)"
            var kind = key.kind
            let own = (path, key)
            while case .list(let element, _) = kind {
                path += "[]"
                kind = element
            }
            guard case .mapping(let inner, _) = kind else { return [own] }
            return [own] + flattened(inner, below: path)
        }
    }

    static let all = flattened(root)
}
