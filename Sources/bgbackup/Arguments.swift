import FoundationEssentials
import Glibc

/// Small conversions that several commands share.

/// A path as the shell gave it, made absolute without resolving links.
func absolute(_ path: String) -> String {
    guard !path.hasPrefix("/") else { return path.count > 1 && path.hasSuffix("/") ? String(path.dropLast()) : path }
    let current = FileManager.default.currentDirectoryPath
    return path == "." ? current : "\(current)/\(path)"
}

/// A path inside a snapshot: without slashes at its ends, without "./".
func relativePath(_ path: String) -> String {
    path.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
}

/// "2026-11-21T01:02:03.4Z" → "2026-11-21 01:02:03".
func shortTime(_ text: String) -> String { String(text.prefix(19)).replacing("T", with: " ") }

/// Seconds to the millisecond, as JSON should show them.
func rounded(_ seconds: Double) -> Double { (seconds * 1000).rounded() / 1000 }
