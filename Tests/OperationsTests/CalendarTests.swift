import BackupBase
import TestSupport
import Testing

@testable import Operations

@Suite(.timeLimit(.minutes(2))) struct CalendarTests {
    private static let day = 86_400.0

    /// Seconds between two moments at the most.
    static let gaps: [(String, Double?)] = [
        ("minutely", 60), ("hourly", 3600), ("daily", day), ("weekly", 7 * day), ("monthly", 31 * day), ("quarterly", 92 * day),
        ("semiannually", 184 * day), ("yearly", 366 * day), ("Daily", day), ("daily UTC", day), ("*:0/15", 900),
        ("*-*-* *:05:00", 3600), ("*-*-* 02:00:00", day), ("*-*-* 02:00:00 Europe/Berlin", day), ("02:00", day),
        ("*-*-* 00,06,12,18:00", 6 * 3600), ("*-*-* 08..18:00", 14 * 3600), ("Sun *-*-* 04:00", 7 * day),
        ("Mon..Fri 22:00", 3 * day), ("Mon-Fri 22:00", 3 * day), ("Mon,Thu", 4 * day), ("*-*-01 03:00", 31 * day),
        ("*-*-1,15 03:00", 17 * day), ("*-*-31 03:00", 61 * day), ("*-*~01 03:00", 31 * day),
        ("*-02-29 00:00", 4 * 366 * day - 3 * day),
        ("2026-12-24 18:00", nil), ("2026-*-* 18:00", nil), ("@1700000000", nil), ("*:*:0/30", 30), ("*-*-* 10:00:00.5", day),
        ("Sat *-*-1..7 18:00", 35 * day),
    ]

    @Test(arguments: CalendarTests.gaps) func `how far two moments are apart`(text: String, gap: Double?) throws {
        let found = try CalendarExpression(text).longestGap
        #expect(found == gap, "\(text): \(found ?? -1)")
    }

    /// What this takes, systemd takes, and the other way round.
    @Test(.enabled(if: Program.hasTool("systemd-analyze"), "needs systemd-analyze"))
    func `systemd agrees on what is an expression`() throws {
        let others = [
            "foo", "Fri..Mon 22:00", "*-*-* 18..08:00", "10-", "weekly 02:00", "*-*-* 0:0:60", "Mon .. Tue", "*-*-* 02:00:00 utc",
            "*-02~01", "*-*-* 2:0",
            "*-*-* 25:00", "32:00", "*-13-01", "Mon..", "Foo *-*-*", "*-*-* 02:60", "*-*", "1..5:00", "*:*/0", "a daily",
            "*-*-* 02:00:00 Nowhere/City", "Mon Tue", "*-*-*-*", "::", "*-*-* 02", "2026-02-30", "0/2:00", "*-*-* */2:00", "Mon,",
            "1-2-3 4:5:6",
        ]
        for text in Self.gaps.map(\.0) + others {
            let real = try Program.tool("systemd-analyze", ["calendar", "--", text]).status == 0
            let ours = (try? CalendarExpression(text)) != nil
            // A zone is known to systemd only.
            if text.contains("Nowhere") { continue }
            #expect(ours == real, "\(text): systemd \(real ? "takes" : "refuses") it")
        }
    }

    @Test func `nodes that begin a little apart find the same moment`() throws {
        let start = 1_795_795_200.0  // 2026-11-27 16:00:00 UTC, a Friday
        let hourly = try CalendarExpression("*-*-* *:05:00")
        for now in [start + 60, start + 300, start + 900, start + 30 * 60] {
            #expect(hourly.moment(near: now, offset: 3600) == start + 300)
        }
        #expect(hourly.moment(near: start + 36 * 60, offset: 0) == start + 3900)
        let daily = try CalendarExpression("02:00")
        let two = start - 14 * 3600
        #expect(daily.moment(near: two + 1800, offset: 0) == two && daily.moment(near: two - 1800, offset: 0) == two)
        #expect(daily.moment(near: two + 3601, offset: 0) == nil)
        // Two o'clock where it is an hour later, and over midnight.
        #expect(daily.moment(near: two - 3000, offset: 3600) == two - 3600)
        #expect(try CalendarExpression("00:00").moment(near: two - 7260, offset: 0) == two - 7200)
        #expect(try CalendarExpression("02:00 UTC").moment(near: two, offset: 3600) == two)
        #expect(try CalendarExpression("Fri 02:00").moment(near: two, offset: 0) == two)
        for other in ["Thu 02:00", "*-*-26 02:00", "*-10-27 02:00", "02:00 Europe/Berlin", "2026-11-27 02:00"] {
            #expect(try CalendarExpression(other).moment(near: two, offset: 0) == nil, "\(other)")
        }
    }

    @Test(.enabled(if: Program.hasTool("systemd-analyze"), "needs systemd-analyze"))
    func `the next moment is systemd's`() throws {
        for text in Self.gaps.map(\.0) where !text.contains("Berlin") && !text.contains(".5") {
            guard let expression = try? CalendarExpression(text), let next = expression.next(after: 1_795_795_230, offset: 0)
            else { continue }
            let real = try Program.tool(
                "systemd-analyze", ["calendar", "--base-time=2026-11-27 16:00:30 UTC", "--", text], environment: ["TZ": "UTC"])
            #expect(CalendarForecast.parse(real.output).2.first == formatTime(next, "%Y-%m-%dT%H:%M:%SZ"), "\(text)")
        }
        // Two o'clock where it is an hour later.
        #expect(try CalendarExpression("02:00").next(after: 1_795_795_200, offset: 3600) == 1_795_795_200 + 9 * 3600)
        #expect(try CalendarExpression("2026-12-24 18:00").next(after: 0, offset: 0) == nil)
    }

    @Test func `what systemd-analyze prints is read, in UTC and elsewhere`() {
        let (normalized, local, moments) = CalendarForecast.parse(
            """
              Original form: daily
            Normalized form: *-*-* 00:00:00
                Next elapse: Sat 2026-11-28 00:00:00 CET
                   (in UTC): Fri 2026-11-27 23:00:00 UTC
                   From now: 7h left
                   Iter. #2: Sun 2026-11-29 00:00:00 CET
                   (in UTC): Sat 2026-11-28 23:00:00 UTC
                   From now: 1 day 7h left
            """)
        #expect(normalized == "*-*-* 00:00:00" && local == ["Sat 2026-11-28 00:00:00 CET", "Sun 2026-11-29 00:00:00 CET"])
        #expect(moments == ["2026-11-27T23:00:00Z", "2026-11-28T23:00:00Z"])
    }
}
