import BackupBase

/// Text for a page: whatever it holds, it stays text.
func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "&": result += "&amp;"
        case "<": result += "&lt;"
        case ">": result += "&gt;"
        case "\"": result += "&quot;"
        case "'": result += "&#39;"
        // No control characters, and none that turn the direction of what follows.
        case _ where scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) || scalar.properties.isBidiControl:
            result += "\u{fffd}"
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result
}
