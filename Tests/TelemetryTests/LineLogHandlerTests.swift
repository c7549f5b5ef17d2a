// What a log line may look like, whatever is put into it.

import Logging
import Telemetry
import Testing

@Suite struct LineLogHandlerTests {
    private func line(
        _ format: LogFormat, level: Logger.Level = .info, _ message: String,
        _ fields: Logger.Metadata = [:]
    ) -> String {
        let handler = LineLogHandler(label: "server", level: .trace, format: format, descriptor: -1)
        let bytes = handler.line(
            seconds: 1_738_315_613, nanoseconds: 589_999_999, level: level, message: message,
            fields: fields)
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test func `a text line has time, level, label, message and sorted fields`() {
        let text = line(.text, level: .warning, "listening", ["port": "6379", "address": "::1"])
        #expect(
            text == "2025-01-31T09:26:53.589Z warning server: listening address=::1 port=6379\n")
    }

    @Test func `a JSON line has the same parts under their names`() {
        let text = line(.json, "listening", ["port": "6379"])
        #expect(
            text
                == #"{"time":"2025-01-31T09:26:53.589Z","level":"info","label":"server","#
                + #""message":"listening","port":"6379"}"# + "\n")
    }

    @Test func `a text value that is not one word is quoted`() {
        #expect(line(.text, "m", ["v": "two words"]).hasSuffix(#" v="two words""# + "\n"))
        #expect(line(.text, "m", ["v": ""]).hasSuffix(#" v="""# + "\n"))
        #expect(line(.text, "m", ["v": "a=b"]).hasSuffix(#" v="a=b""# + "\n"))
        #expect(line(.text, "m", ["v": #"say "hi""#]).hasSuffix(#" v="say \"hi\"""# + "\n"))
    }

    @Test(arguments: LogFormat.allCases)
    func `nothing in a message, key or value breaks the line`(format: LogFormat) {
        let hostile = "a\nb\rc\u{0}d\u{1b}[31me\u{85}f\u{2028}g\u{202e}h\u{7f}i\u{feff}j"
        let text = line(format, hostile, [hostile: .string(hostile)])
        let inner = text.dropLast().unicodeScalars
        #expect(text.hasSuffix("\n"))
        #expect(inner.allSatisfy { $0.value >= 0x20 && $0.value != 0x7f })
        #expect(!inner.contains { ["\u{85}", "\u{2028}", "\u{202e}", "\u{feff}"].contains($0) })
        #expect(text.contains(#"a\nb\rc\u0000d\u001b[31me\u0085f\u2028g\u202eh\u007fi\ufeffj"#))
    }

    @Test func `characters outside the basic plane are escaped as JSON wants them`() {
        // A language tag: unprintable, and beyond U+FFFF.
        #expect(line(.json, "\u{e0041}").contains(#""message":"\udb40\udc41""#))
    }

    @Test func `a backslash cannot be mistaken for an escape`() {
        #expect(line(.text, #"a\nb"#).contains(#": a\\nb"#))
    }

    @Test(arguments: LogFormat.allCases)
    func `a line is never longer than its limit`(format: LogFormat) {
        let long = String(repeating: "\"é", count: 10_000)
        var fields: Logger.Metadata = [:]
        for number in 0..<20 { fields["key\(number)"] = .string(long) }
        let text = line(format, long, fields)
        #expect(text.utf8.count <= LineLogHandler.lineLimit)
        #expect(text.contains("…"))
        #expect(text.hasSuffix(format == .json ? "}\n" : " …\n"))
    }

    @Test func `a JSON field cannot replace a part of the record`() {
        let text = line(.json, "m", ["level": "critical", "time": "never"])
        #expect(!text.contains("critical"))
        #expect(!text.contains("never"))
    }

    @Test func `nested metadata is one value`() {
        let text = line(.text, "m", ["v": ["a", ["k": "b"]]])
        #expect(text.hasSuffix(#" v="[a, {k: b}]""# + "\n"))
    }

    @Test func `times before 1970 and far ahead are dates too`() {
        let handler = LineLogHandler(label: "l", level: .info, format: .text, descriptor: -1)
        func time(_ seconds: Int64) -> String {
            let bytes = handler.line(
                seconds: seconds, nanoseconds: 0, level: .info, message: "", fields: [:])
            return String(decoding: bytes.prefix { $0 != 0x20 }, as: UTF8.self)
        }
        #expect(time(-1) == "1969-12-31T23:59:59.000Z")
        #expect(time(951_782_400) == "2000-02-29T00:00:00.000Z")
        #expect(time(4_102_444_800) == "2100-01-01T00:00:00.000Z")
    }
}
