import FoundationEssentials
import Glibc

/// Small conversions that several commands share.

/// A path as the shell gave it, made absolute without resolving links.
func absolute(_ path: String) -> String {
    guard !path.hasPrefix("/") else { return path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path }
    let current = FileManager.default.currentDirectoryPath
    return path == "." ? current : "\(current)/\(path)"
}

/// A path inside a snapshot: without slashes at its ends, without "./". Bytes
/// that are no text are given as `ls` prints them, as \xNN.
func snapshotPath(_ path: String) -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = Array(path.split(separator: "/").filter { $0 != "." }.joined(separator: "/").utf8)[...]
    while let byte = rest.popFirst() {
        if byte == UInt8(ascii: "\\"), rest.first == UInt8(ascii: "x"),
            let value = UInt8(String(decoding: rest.dropFirst().prefix(2), as: UTF8.self), radix: 16), rest.count >= 3
        {
            bytes.append(value)
            rest = rest.dropFirst(3)
        } else {
            bytes.append(byte)
        }
    }
    return bytes
}

/// "2026-11-21T01:02:03.4Z" → "2026-11-21 01:02:03".
func shortTime(_ text: String) -> String { String(text.prefix(19)).replacing("T", with: " ") }

/// Seconds to the millisecond, as JSON should show them.
func rounded(_ seconds: Double) -> Double { (seconds * 1000).rounded() / 1000 }
