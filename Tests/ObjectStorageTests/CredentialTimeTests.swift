import Testing

@testable import ObjectStorage

@Suite struct CredentialTimeTests {
    @Test(
        arguments: [
            ("1970-01-01T00:00:00Z", 0), ("2027-01-15T08:00:00Z", 1_800_000_000_000_000_000),
            ("2027-01-15t08:00:00z", 1_800_000_000_000_000_000), ("2027-01-15T10:00:00+02:00", 1_800_000_000_000_000_000),
            ("2027-01-15T02:30:00-0530", 1_800_000_000_000_000_000), ("2027-01-15 08:00:00+00:00", 1_800_000_000_000_000_000),
            ("2027-01-15T08:00:00.5Z", 1_800_000_000_500_000_000),
            ("2027-01-15T08:00:00.1234567899Z", 1_800_000_000_123_456_789),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000), ("2000-02-29T23:59:60Z", 951_868_800_000_000_000),
            ("9999-12-31T23:59:59Z", .max), ("0000-01-01T00:00:00Z", 0), ("1969-12-31T23:59:59Z", 0),
        ] as [(String, Int64)])
    func `times as services write them are read`(_ text: String, _ time: Int64) {
        #expect(CredentialTime.parse(text) == time)
    }

    @Test(
        arguments: [
            "", "2027", "2027-01-15", "2027-01-15T08:00:00", "2027-01-15T08:00:00.Z", "2027-13-15T08:00:00Z",
            "2027-02-29T08:00:00Z", "2100-02-29T08:00:00Z", "2027-00-10T08:00:00Z", "2027-01-00T08:00:00Z",
            "2027-01-15T24:00:00Z", "2027-01-15T08:60:00Z", "2027-01-15T08:00:61Z", "2027-01-15T08:00:00+2:00",
            "2027-01-15T08:00:00+24:00", "2027-01-15T08:00:00Z ", "+027-01-15T08:00:00Z", "2027-1-15T08:00:00Z",
            "20270115T080000Z", "1800000000", "２０２７-01-15T08:00:00Z",
        ])
    func `anything else is no time`(_ text: String) {
        #expect(CredentialTime.parse(text) == nil)
    }

    @Test func `seconds are read, and what is beyond every clock is cut off`() {
        #expect(CredentialTime.nanoseconds(seconds: 1_800_000_000) == 1_800_000_000_000_000_000)
        #expect(CredentialTime.nanoseconds(seconds: 1e300) == .max)
        #expect(CredentialTime.nanoseconds(seconds: -5) == 0)
    }
}
