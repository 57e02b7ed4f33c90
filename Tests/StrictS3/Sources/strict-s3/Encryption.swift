import Crypto
import Foundation

/// How an object claims to be encrypted at rest. Nothing is encrypted; keys are checked all the same.
enum Encryption: Sendable, Equatable {
    case managed
    case kms(algorithm: String, key: String?)
    /// The MD5 of the customer's key, all that S3 keeps of it.
    case customer(keyMD5: String)

    private static let prefix = "x-amz-server-side-encryption"

    init?(_ request: S3Request) throws {
        let customer = try Self.customerKey(request)
        let algorithm = request.header(Self.prefix)
        let key = request.header(Self.prefix + "-aws-kms-key-id")
        if let customer {
            guard algorithm == nil, key == nil else {
                throw S3Error.invalidArgument(
                    "Server Side Encryption with Customer provided key is incompatible with the "
                        + "encryption method specified"
                )
            }
            self = .customer(keyMD5: customer)
            return
        }
        switch algorithm {
        case nil where key == nil: return nil
        case "AES256" where key == nil: self = .managed
        case "aws:kms", "aws:kms:dsse": self = .kms(algorithm: algorithm ?? "", key: key)
        case nil, "AES256":
            throw S3Error.invalidArgument(
                "Server Side Encryption with AWS KMS managed key requires HTTP header "
                    + "x-amz-server-side-encryption : aws:kms"
            )
        default:
            throw S3Error(400, "InvalidEncryptionAlgorithmError", "The encryption method specified is not supported")
        }
    }

    /// The MD5 of the key in a request's SSE-C headers, once all three agree.
    private static func customerKey(_ request: S3Request) throws -> String? {
        let name = prefix + "-customer-"
        let (algorithm, key) = (request.header(name + "algorithm"), request.header(name + "key"))
        let md5 = request.header(name + "key-md5")
        if algorithm == nil, key == nil, md5 == nil { return nil }
        guard algorithm == "AES256" else {
            throw S3Error.invalidArgument(
                "Requests specifying Server Side Encryption with Customer provided keys must "
                    + "provide a valid encryption algorithm."
            )
        }
        guard let key, let bytes = Data(base64Encoded: key), bytes.count == 32 else {
            throw S3Error.invalidArgument("The secret key was invalid for the specified algorithm.")
        }
        let actual = Data(Insecure.MD5.hash(data: bytes)).base64EncodedString()
        guard let md5, md5 == actual else {
            throw S3Error.invalidArgument(
                "The calculated MD5 hash of the key did not match the hash that was provided.")
        }
        return actual
    }

    /// Whether a reader's (or part writer's) headers fit the object's encryption.
    static func checkKey(_ stored: Encryption?, _ request: S3Request) throws {
        let sent = try customerKey(request)
        if case .customer(let keyMD5) = stored {
            guard let sent else {
                throw S3Error.invalidRequest(
                    "The object was stored using a form of Server Side Encryption. The correct "
                        + "parameters must be provided to retrieve the object."
                )
            }
            guard sent == keyMD5 else {
                throw S3Error.accessDenied("Access Denied: the customer key is not the object's")
            }
        } else if sent != nil {
            throw S3Error.invalidRequest("The encryption parameters are not applicable to this object.")
        }
    }

    var headers: [(String, String)] {
        switch self {
        case .managed: [(Self.prefix, "AES256")]
        case .kms(let algorithm, let key):
            [(Self.prefix, algorithm)] + (key.map { [(Self.prefix + "-aws-kms-key-id", $0)] } ?? [])
        case .customer(let keyMD5):
            [(Self.prefix + "-customer-algorithm", "AES256"), (Self.prefix + "-customer-key-MD5", keyMD5)]
        }
    }

    /// AWS: the ETag is an MD5 of the content only without KMS and customer keys.
    var hidesMD5: Bool { self != .managed }
}
