import FoundationEssentials

func base64(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString() }

func bytesFromBase64(_ text: String) -> [UInt8]? { Data(base64Encoded: text).map { Array($0) } }
