import AWS
import Testing

@Suite struct WallTimeTests {
    @Test(arguments: [
        ("1970-01-01T00:00:00Z", 0), ("2000-02-29T23:59:59Z", 951_868_799),
        ("2024-02-29T12:00:00Z", 1_709_208_000), ("2026-11-21T12:34:56UTC", 1_795_264_496),
        ("2026-11-21T12:34:56+00:00", 1_795_264_496), ("2026-11-21T13:34:56+0100", 1_795_264_496),
        ("2100-03-01T00:00:00Z", 4_107_542_400), ("9999-12-31T23:59:59Z", 253_402_300_799),
    ])
    func `a date is read`(text: String, seconds: Int64) {
        #expect(WallTime(iso8601: text) == WallTime(seconds: seconds))
    }

    @Test func `a fraction of a second is read to the millisecond`() {
        #expect(
            WallTime(iso8601: "1970-01-01T00:00:01.1234567Z") == WallTime(milliseconds: 1123))
        #expect(WallTime(iso8601: "1970-01-01T00:00:01.5Z") == WallTime(milliseconds: 1500))
    }

    @Test(arguments: [
        "", "2026", "2026-11-21", "2026-13-01T00:00:00Z", "2026-11-21T24:00:00Z",
        "2026-11-21T00:00:00", "2026-11-21T00:00:00.Z", "2026-11-21T00:00:00+1",
        "x026-11-21T00:00:00Z", "2026-11-21T00:00:00Zulu", "2026-11-21T00:00:00-25:00",
    ])
    func `what is no date is refused`(text: String) {
        #expect(WallTime(iso8601: text) == nil)
    }

    @Test func `a date is written as it is read`() {
        for day in stride(from: Int64(-200_000), to: 2_000_000, by: 97) {
            let time = WallTime(seconds: day * 86_400 + 86_399)
            #expect(WallTime(iso8601: time.iso8601) == time)
        }
        #expect(WallTime(seconds: 1_795_264_496).amzDate == "20261121T123456Z")
        #expect(WallTime(seconds: 1_795_264_496).scopeDate == "20261121")
    }
}
