// Loggers as the rooms use them: what reaches the descriptor.

import Glibc
import Logging
import Telemetry
import Testing

@Suite struct LogTests {
    /// Everything that `body` logged, read from a pipe.
    private func output(_ body: (Int32) -> Void) -> String {
        var ends: [Int32] = [-1, -1]
        #expect(pipe(&ends) == 0)
        body(ends[1])
        close(ends[1])
        defer { close(ends[0]) }
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let got = read(ends[0], &chunk, chunk.count)
            guard got > 0 else { break }
            text += chunk[..<got]
        }
        return String(decoding: text, as: UTF8.self)
    }

    @Test func `records below the level are not written`() {
        let text = output { descriptor in
            let log = Log.make("room", level: .warning, format: .text, descriptor: descriptor)
            log.info("quiet")
            log.warning("loud")
        }
        #expect(text.hasSuffix(" warning room: loud\n"))
        #expect(!text.contains("quiet"))
    }

    @Test func `a policy that changes changes every logger that was made with it`() {
        let policy = LogPolicy(level: .warning, format: .text)
        let text = output { descriptor in
            let first = Log.make("one", policy, descriptor: descriptor)
            var second = first
            second[metadataKey: "worker"] = "1"
            var own = first
            own.logLevel = .error
            first.info("before")
            policy.level = .debug
            policy.format = .json
            first.debug("after")
            second.debug("too")
            own.warning("its own level stays")
        }
        let lines = text.split(separator: "\n")
        #expect(lines.count == 2)
        #expect(lines[0].contains("\"message\":\"after\""))
        #expect(lines[1].contains("\"message\":\"too\"") && lines[1].contains("\"worker\":\"1\""))
    }

    @Test func `a logger's own fields are in every record and a record's fields win`() {
        let text = output { descriptor in
            var log = Log.make("room", level: .info, format: .text, descriptor: descriptor)
            log[metadataKey: "user"] = "app"
            log[metadataKey: "worker"] = "0"
            log.info("hello", metadata: ["worker": "7"])
        }
        #expect(text.hasSuffix(" info room: hello user=app worker=7\n"))
    }

    @Test func `a descriptor that cannot be written loses the record and nothing else`() {
        let log = Log.make("room", level: .info, format: .json, descriptor: -1)
        log.error("nobody hears this")
    }
}
