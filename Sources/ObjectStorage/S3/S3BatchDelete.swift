import BackupBase

/// DeleteObjects: up to a thousand names in one request.
struct S3BatchDelete {
    private let store: S3Store

    init(_ store: S3Store) { self.store = store }

    /// Removes the objects.
    /// - Returns: those that the store did not remove; asked for one by one, each
    ///   says why (some stores refuse the whole operation, and some a key of it)
    func leftOver(_ names: [String]) async throws -> [String] {
        var call = S3Call("POST", nil, operation: "delete", name: store.full("\(names.count) objects"))
        call.query = [("delete", "")]
        call.mayFailInside = true
        let keys = names.map { "<Object><Key>\(Self.escaped(store.key($0)))</Key></Object>" }.joined()
        call.setBody(Array("<Delete><Quiet>true</Quiet>\(keys)</Delete>".utf8))
        do {
            let response = try await store.perform(call)
            guard let result = XMLElement.parse(response.body.bytes), result.name == "DeleteResult" else { return names }
            let failed = Set(result.all("Error").compactMap { $0["Key"] })
            return names.filter { failed.contains(store.key($0)) }
        } catch let error as StoreError where [.denied, .unsupported, .failed, .notFound].contains(error.kind) {
            return names
        }
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
    }
}
