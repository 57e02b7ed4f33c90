import BackupBase
import FoundationEssentials

/// What STS answers: JSON, which AWS sends when asked for it, or XML, which every
/// other implementation sends.
enum SecurityTokenAnswer {
    static func keys(_ body: [UInt8]) -> KeyFields? {
        isJSON(body) ? JSON.keys(body) : XML.keys(String(decoding: body, as: UTF8.self))
    }

    static func failure(_ body: [UInt8]) -> (code: String, message: String)? {
        isJSON(body) ? JSON.failure(body) : XML.failure(String(decoding: body, as: UTF8.self))
    }

    private static func isJSON(_ body: [UInt8]) -> Bool {
        body.first { $0 != 0x20 && !(0x09...0x0d).contains($0) } == UInt8(ascii: "{")
    }

    private enum JSON {
        private struct Result: Decodable { var Credentials: KeyFields? }
        private struct Failure: Decodable {
            struct Details: Decodable {
                var Code: String?
                var Message: String?
            }
            var Error: Details
        }

        /// {"AssumeRoleResponse": {"AssumeRoleResult": {"Credentials": {…}}, "ResponseMetadata": {…}}}
        static func keys(_ body: [UInt8]) -> KeyFields? {
            let answer = try? JSONDecoder().decode([String: [String: Result]].self, from: Data(body))
            return answer?.values.flatMap(\.values).compactMap(\.Credentials).first
        }

        static func failure(_ body: [UInt8]) -> (code: String, message: String)? {
            guard let details = try? JSONDecoder().decode(Failure.self, from: Data(body)).Error else { return nil }
            return (details.Code ?? "", details.Message ?? "")
        }
    }

    /// A few elements out of an answer of 64 KiB at the most. No parser: whatever is
    /// not exactly `<Name>text</Name>` counts as missing, and what is wrong then fails
    /// as a signature does.
    private enum XML {
        static func keys(_ text: String) -> KeyFields? {
            guard let inner = element("Credentials", text) else { return nil }
            var fields = KeyFields()
            fields.accessKey = value("AccessKeyId", inner)
            fields.secretKey = value("SecretAccessKey", inner).map(SecretText.init)
            fields.token = value("SessionToken", inner).map(SecretText.init)
            fields.expiration = value("Expiration", inner).map(KeyFields.Expiration.text)
            return fields
        }

        static func failure(_ text: String) -> (code: String, message: String)? {
            guard let inner = element("Error", text) else { return nil }
            return (value("Code", inner) ?? "", value("Message", inner) ?? "")
        }

        private static func element(_ name: String, _ text: String) -> String? {
            guard let start = text.firstRange(of: "<\(name)>"),
                let end = text[start.upperBound...].firstRange(of: "</\(name)>")
            else { return nil }
            return String(text[start.upperBound..<end.lowerBound])
        }

        private static func value(_ name: String, _ text: String) -> String? {
            guard var value = element(name, text)?.trimmingSpace(), !value.contains("<") else { return nil }
            // "&amp;" last, or "&amp;lt;" would be undone twice.
            for (entity, character) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")] {
                value = value.replacing(entity, with: character)
            }
            return value
        }
    }
}
