/// Wrong or unusual ways in which the server behaves for every request, as real stores do.
struct Personality: Sendable {
    // Conditional writes.
    var ignoreConditions: Bool
    var claimConditions: Bool
    var ignoreIfMatch: Bool
    var conditionsNotImplemented: Bool
    // Reading.
    var ignoreRanges: Bool
    var wrongRange: Bool
    var corruptBody: Bool
    var forgetsMetadata: Bool
    var checksumOnRange: Bool
    var chunkedAnswers: Bool
    var bytesPerSecond: Int?
    var staleReads: Double
    var lateReads: Double
    // Listing.
    var listDelaySeconds: Double
    var listDuplicates: Bool
    var listUnsorted: Bool
    var listLoops: Bool
    var ignoreStartAfter: Bool
    var truncateListing: Bool
    var maxKeysCap: Int?
    var prettyXML: Bool
    // Writing.
    var storesNothing: Bool
    var storesTruncated: Bool
    var deletesNothing: Bool
    var lockIgnored: Bool
    var opaqueETag: Bool
    var etagUnquoted: Bool
    var deleteMissing404: Bool
    // Names.
    var caseMangles: Bool
    var plusIsSpace: Bool
    var headerCase: Bool
    // Time, tokens, places.
    var clockSkewSeconds: Double
    var expireTokensAfterRequests: Int?
    var tokenErrorStatus: Int
    var delayMilliseconds: Double
    var redirect: [String: String]
    var temporaryRedirect: [String: String]
    // Answers.
    var htmlErrors: Bool
    var closeAfterAnswer: Bool
    var retryAfterSeconds: Int?
    /// SlowDown for whoever comes while so many others are being served.
    var maxConcurrent: Int?

    init(_ json: JSONValue?) throws {
        var reader = try FieldReader(json, in: "personality")
        ignoreConditions = try reader.bool("ignoreConditions")
        claimConditions = try reader.bool("claimConditions")
        ignoreIfMatch = try reader.bool("ignoreIfMatch")
        conditionsNotImplemented = try reader.bool("conditionsNotImplemented")
        ignoreRanges = try reader.bool("ignoreRanges")
        wrongRange = try reader.bool("wrongRange")
        corruptBody = try reader.bool("corruptBody")
        forgetsMetadata = try reader.bool("forgetsMetadata")
        checksumOnRange = try reader.bool("checksumOnRange")
        chunkedAnswers = try reader.bool("chunkedAnswers")
        bytesPerSecond = try reader.int("bytesPerSecond")
        staleReads = try reader.double("staleReads") ?? 0
        lateReads = try reader.double("lateReads") ?? 0
        listDelaySeconds = try reader.double("listDelaySeconds") ?? 0
        listDuplicates = try reader.bool("listDuplicates")
        listUnsorted = try reader.bool("listUnsorted")
        ignoreStartAfter = try reader.bool("ignoreStartAfter")
        listLoops = try reader.bool("listLoops")
        truncateListing = try reader.bool("truncateListing")
        maxKeysCap = try reader.int("maxKeysCap")
        prettyXML = try reader.bool("prettyXML")
        storesNothing = try reader.bool("storesNothing")
        deletesNothing = try reader.bool("deletesNothing")
        storesTruncated = try reader.bool("storesTruncated")
        lockIgnored = try reader.bool("lockIgnored")
        opaqueETag = try reader.bool("opaqueETag")
        etagUnquoted = try reader.bool("etagUnquoted")
        deleteMissing404 = try reader.bool("deleteMissing404")
        caseMangles = try reader.bool("caseMangles")
        plusIsSpace = try reader.bool("plusIsSpace")
        headerCase = try reader.bool("headerCase")
        clockSkewSeconds = try reader.double("clockSkewSeconds") ?? 0
        expireTokensAfterRequests = try reader.int("expireTokensAfterRequests")
        tokenErrorStatus = try reader.int("tokenErrorStatus") ?? 400
        delayMilliseconds = try reader.double("delayMilliseconds") ?? 0
        redirect = try reader.map("redirect")
        temporaryRedirect = try reader.map("temporaryRedirect")
        htmlErrors = try reader.bool("htmlErrors")
        closeAfterAnswer = try reader.bool("closeAfterAnswer")
        maxConcurrent = try reader.int("maxConcurrent")
        retryAfterSeconds = try reader.int("retryAfterSeconds")
        try reader.finish()
    }
}
