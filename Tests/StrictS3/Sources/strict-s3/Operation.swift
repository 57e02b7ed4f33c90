/// The operations served, and those only known well enough to be refused with the right action.
enum Operation: String, Sendable {
    case listBuckets = "ListBuckets"
    case headBucket = "HeadBucket"
    case createBucket = "CreateBucket"
    case deleteBucket = "DeleteBucket"
    case getBucketLocation = "GetBucketLocation"
    case getBucketVersioning = "GetBucketVersioning"
    case putBucketVersioning = "PutBucketVersioning"
    case getObjectLockConfiguration = "GetObjectLockConfiguration"
    case listObjectsV2 = "ListObjectsV2"
    case listObjectVersions = "ListObjectVersions"
    case listMultipartUploads = "ListMultipartUploads"
    case deleteObjects = "DeleteObjects"
    case getObject = "GetObject"
    case headObject = "HeadObject"
    case putObject = "PutObject"
    case deleteObject = "DeleteObject"
    case getObjectRetention = "GetObjectRetention"
    case putObjectRetention = "PutObjectRetention"
    case createMultipartUpload = "CreateMultipartUpload"
    case uploadPart = "UploadPart"
    case completeMultipartUpload = "CompleteMultipartUpload"
    case abortMultipartUpload = "AbortMultipartUpload"
    case listParts = "ListParts"
    case securityToken = "SecurityToken"
    // Not served, but a policy may have a word on them first.
    case putLifecycle = "PutLifecycleConfiguration"
    case putBucketPolicy = "PutBucketPolicy"
    case deleteBucketPolicy = "DeleteBucketPolicy"
    case putObjectLockConfiguration = "PutBucketObjectLockConfiguration"

    /// The operation that method, place and query parameters name.
    static func route(_ request: S3Request) throws -> Operation {
        if request.bucket == nil {
            switch request.method {
            case "GET" where request.query.isEmpty: return .listBuckets
            case "GET": return try checked(.listBuckets, request)
            case "POST": return .securityToken
            default:
                throw S3Error(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
            }
        }
        return try checked(request.key == nil ? bucketOperation(request) : objectOperation(request), request)
    }

    private static func bucketOperation(_ request: S3Request) throws -> Operation {
        let has = request.hasQuery
        switch request.method {
        case "HEAD": return .headBucket
        case "GET" where has("location"): return .getBucketLocation
        case "GET" where has("versioning"): return .getBucketVersioning
        case "GET" where has("versions"): return .listObjectVersions
        case "GET" where has("uploads"): return .listMultipartUploads
        case "GET" where has("object-lock"): return .getObjectLockConfiguration
        case "GET" where request.queryValue("list-type") == "2": return .listObjectsV2
        case "PUT" where has("versioning"): return .putBucketVersioning
        case "PUT" where has("lifecycle"): return .putLifecycle
        case "PUT" where has("policy"): return .putBucketPolicy
        case "PUT" where has("object-lock"): return .putObjectLockConfiguration
        case "PUT" where request.query.isEmpty: return .createBucket
        case "DELETE" where has("policy"): return .deleteBucketPolicy
        case "DELETE" where has("lifecycle"): return .putLifecycle
        case "DELETE" where request.query.isEmpty: return .deleteBucket
        case "POST" where has("delete"): return .deleteObjects
        default:
            throw S3Error.notImplemented("\(request.method) of a bucket with ?\(request.rawQuery) is not served here")
        }
    }

    private static func objectOperation(_ request: S3Request) throws -> Operation {
        let has = request.hasQuery
        switch request.method {
        case "HEAD": return .headObject
        case "GET" where has("retention"): return .getObjectRetention
        case "GET" where has("uploadId"): return .listParts
        case "GET": return .getObject
        case "PUT" where has("retention"): return .putObjectRetention
        case "PUT" where has("uploadId") || has("partNumber"): return .uploadPart
        case "PUT": return .putObject
        case "DELETE" where has("uploadId"): return .abortMultipartUpload
        case "DELETE": return .deleteObject
        case "POST" where has("uploads"): return .createMultipartUpload
        case "POST" where has("uploadId"): return .completeMultipartUpload
        default:
            throw S3Error.notImplemented("\(request.method) of an object with ?\(request.rawQuery) is not served here")
        }
    }

    /// Refuses parameters the operation does not have: AWS ignores them, and a typing error stays unseen.
    private static func checked(_ operation: Operation, _ request: S3Request) throws -> Operation {
        for item in request.query where item.name != "x-id" && !operation.parameters.contains(item.name) {
            throw S3Error.notImplemented("\(operation.rawValue) has no query parameter '\(item.name)' here")
        }
        if request.header("x-amz-copy-source") != nil { throw S3Error.notImplemented("copies are not served here") }
        return operation
    }

    private var parameters: Set<String> {
        switch self {
        case .getBucketLocation: ["location"]
        case .getBucketVersioning, .putBucketVersioning: ["versioning"]
        case .getObjectLockConfiguration, .putObjectLockConfiguration: ["object-lock"]
        case .listObjectsV2:
            [
                "list-type", "prefix", "delimiter", "continuation-token", "start-after", "max-keys", "encoding-type",
                "fetch-owner",
            ]
        case .listObjectVersions:
            ["versions", "prefix", "delimiter", "key-marker", "version-id-marker", "max-keys", "encoding-type"]
        case .listMultipartUploads:
            ["uploads", "prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads", "encoding-type"]
        case .deleteObjects: ["delete"]
        case .getObject, .headObject, .deleteObject: ["versionId"]
        case .getObjectRetention, .putObjectRetention: ["retention", "versionId"]
        case .createMultipartUpload: ["uploads"]
        case .uploadPart: ["uploadId", "partNumber"]
        case .completeMultipartUpload, .abortMultipartUpload: ["uploadId"]
        case .listParts: ["uploadId", "max-parts", "part-number-marker"]
        case .putLifecycle: ["lifecycle"]
        case .putBucketPolicy, .deleteBucketPolicy: ["policy"]
        default: []
        }
    }

    /// Whether a success has a body that can be cut short.
    var answersWithBody: Bool {
        switch self {
        case .getObject, .listObjectsV2, .listObjectVersions, .listMultipartUploads, .deleteObjects, .listParts,
            .completeMultipartUpload, .createMultipartUpload, .getObjectRetention, .securityToken:
            true
        default: false
        }
    }
}
