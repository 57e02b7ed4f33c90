import BackupBase
@testable import ObjectStorage

/// Everything that a store, a metadata service or a URL may say, chosen by the
/// first byte: a parser may refuse, and must not trap, hang or pass bytes on
/// that a terminal would obey.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count > 1 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: start + 1, count: count - 1))
    let text = String(decoding: bytes, as: UTF8.self)
    switch start[0] % 9 {
    case 0: _ = bytes.withUnsafeBytes { XMLElement.parse($0) }
    case 1:
        let body = AlignedBuffer(copying: bytes)
        let failure = S3Failure(HTTPResponse(status: 400 + Int(start[0]), headers: [], body: body))
        requirePrintable(failure.code + failure.message + (failure.region ?? ""))
    case 2:
        do { _ = try S3Place(url: "s3://" + text, environment: { _ in nil }) } catch let error as StoreError {
            requirePrintable("\(error)" + (error.hint ?? ""))
        } catch {}
    case 3: _ = parseListDate(text) ?? parseHTTPDate(text)
    case 4:
        let call = S3Call("GET", "k", operation: "read", name: "k")
        let response = HTTPResponse(status: 206, headers: [("content-range", text)], body: AlignedBuffer(copying: [1, 2, 3]))
        _ = try? S3Slice(response, .from(1, count: 3), call).bytes(3)
    case 5: _ = try? INIDocument(bytes)
    case 6: _ = (SecurityTokenAnswer.keys(bytes), SecurityTokenAnswer.failure(bytes))
    case 7: _ = try? ShellWords.split(text)
    default: _ = (KeyFields(json: bytes), parseBytes(text), percentDecoded(text), bytesFromBase64(text))
    }
    return 0
}

private func requirePrintable(_ text: String) {
    precondition(!text.unicodeScalars.contains { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) }, "control characters")
}
