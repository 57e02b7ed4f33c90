import BackupBase

/// The server that a bucket is asked on, and the path of its objects there.
struct S3Address: Sendable {
    /// "https://bucket.s3.eu-west-1.amazonaws.com"
    let base: String
    /// As the Host header has it: with a port that is not the scheme's own.
    let host: String
    private let root: String

    /// Virtual-host style on AWS; path style with an endpoint, or where the
    /// bucket's dots would break the wildcard of the certificate.
    init(_ place: S3Place, region: String, host other: String?) {
        let style = place.addressing ?? (place.endpoint != nil || place.bucket.contains(".") ? .path : .virtual)
        let suffix = region.hasPrefix("cn-") ? "amazonaws.com.cn" : "amazonaws.com"
        let endpoint = place.endpoint ?? "https://s3.\(region).\(suffix)"
        let scheme = endpoint.hasPrefix("http://") ? "http" : "https"
        var authority = String(endpoint.dropFirst(scheme.count + 3))
        let standard = scheme == "http" ? ":80" : ":443"
        if authority.hasSuffix(standard) { authority.removeLast(standard.count) }
        switch style {
        case .virtual:
            host = other ?? "\(place.bucket).\(authority)"
            root = ""
        case .path:
            host = other ?? authority
            root = "/\(RequestSigner.encode(place.bucket))"
        }
        base = "\(scheme)://\(host)"
    }

    func path(_ key: String?) -> String {
        guard let key else { return root.isEmpty ? "/" : root }
        return "\(root)/\(RequestSigner.encode(key, keepingSlashes: true))"
    }

    /// The host of a temporary redirect, if it keeps the scheme: signed requests
    /// do not go where TLS is left.
    static func host(ofRedirect location: String, from address: S3Address) -> String? {
        let scheme = address.base.hasPrefix("http://") ? "http://" : "https://"
        guard location.hasPrefix(scheme) else { return nil }
        let host = location.dropFirst(scheme.count).prefix { $0 != "/" && $0 != "?" }
        guard !host.isEmpty, host.utf8.count < 256, !host.contains("@") else { return nil }
        return String(host)
    }
}
