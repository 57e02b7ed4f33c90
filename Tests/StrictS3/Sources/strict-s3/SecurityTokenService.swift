import Foundation

/// The two calls of STS that backup hosts make.
enum SecurityTokenService {
    static func answer(_ request: S3Request, state: inout StoreState, now: Date) -> Answer {
        do {
            return try serve(request, state: &state, now: now)
        } catch let error as S3Error {
            let document = XMLText.document("ErrorResponse", namespace: namespace) { xml in
                xml.element("Error") { xml in
                    xml.element("Type", "Sender")
                    xml.element("Code", error.code)
                    xml.element("Message", error.message)
                }
                xml.element("RequestId", Answer.requestID(request.number))
            }
            var answer = Answer(error.status, xml: document)
            answer.errorCode = error.code
            return answer
        } catch {
            return Answer(500)
        }
    }

    private static let namespace = "https://sts.amazonaws.com/doc/2011-06-15/"

    private static func serve(_ request: S3Request, state: inout StoreState, now: Date) throws -> Answer {
        let items = try S3Request.split(String(buffer: request.body))
        let form = Dictionary(items.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first })
        guard form["Version"] == "2011-06-15" else {
            throw S3Error(400, "MissingAction", "Version must be 2011-06-15")
        }
        let tokens = state.config.tokens
        guard let role = form["RoleArn"], form["RoleSessionName"] != nil else {
            throw S3Error(400, "ValidationError", "RoleArn and RoleSessionName are required")
        }
        var policies: [Policy]?
        if let roles = tokens.roles {
            guard let known = roles[role] else {
                throw S3Error(403, "AccessDenied", "Not authorized to perform sts:\(form["Action"] ?? "") on \(role)")
            }
            policies = known
        }
        switch form["Action"] {
        case "AssumeRole":
            let identity = try state.authenticate(request, service: "sts", now: now)
            if tokens.roles == nil { policies = identity.policies }
        case "AssumeRoleWithWebIdentity":
            guard let token = form["WebIdentityToken"], !token.isEmpty, tokens.webTokens?.contains(token) ?? true else {
                throw S3Error(400, "InvalidIdentityToken", "The web identity token that was passed is not valid")
            }
        default: throw S3Error(400, "InvalidAction", "Could not find operation \(form["Action"] ?? "")")
        }
        let asked = form["DurationSeconds"].flatMap(Double.init) ?? 3600
        let key = state.makeTemporaryKey(lifetime: tokens.lifetimeSeconds ?? asked, policies: policies, now: now)
        return Answer(200, xml: document(form["Action"] ?? "", key, role, request.number))
    }

    private static func document(_ action: String, _ key: TemporaryKey, _ role: String, _ number: Int) -> String {
        XMLText.document(action + "Response", namespace: namespace) { xml in
            xml.element(action + "Result") { xml in
                xml.element("Credentials") { xml in
                    xml.element("AccessKeyId", key.access)
                    xml.element("SecretAccessKey", key.secret)
                    xml.element("SessionToken", key.token)
                    xml.element("Expiration", Timestamp.iso(key.expiration, milliseconds: false))
                }
                xml.element("AssumedRoleUser") { xml in
                    xml.element("Arn", role + "/session")
                    xml.element("AssumedRoleId", "AROASTRICT:session")
                }
            }
            xml.element("ResponseMetadata") { $0.element("RequestId", Answer.requestID(number)) }
        }
    }
}

extension StoreState {
    mutating func makeTemporaryKey(lifetime: Double, policies: [Policy]?, now: Date) -> TemporaryKey {
        temporaryCount += 1
        let key = TemporaryKey(
            access: "ASIASTRICT\(temporaryCount)", secret: "temporary-secret-\(temporaryCount)",
            token: "strict/token+\(temporaryCount)==", expiration: now.addingTimeInterval(lifetime), policies: policies)
        temporaryKeys[key.access] = key
        return key
    }
}
