// Flag over environment over file.

import Configuration
import Testing

@Suite struct PrecedenceTests {
    @Test func `a flag wins over the environment, and the environment over the file`() throws {
        let file = "threads: 2\n" + good
        let environment = ["REDIS_AUTH_PROXY_THREADS": "3"]
        #expect(try load(good).settings.threads == 1)
        #expect(try load(file).settings.threads == 2)
        #expect(try load(file, environment: environment).settings.threads == 3)
        #expect(
            try load(file, environment: environment, flags: ["threads": "4"]).settings.threads == 4)
        #expect(try load(good, flags: ["threads": "4"]).settings.threads == 4)
    }

    @Test func `nested settings are overridden without their neighbours`() throws {
        let file = "log: { level: error, format: json }\n" + good
        let settings = try load(file, flags: ["log-level": "debug"]).settings
        #expect(settings.log.level == .debug)
        #expect(settings.log.format == .json)
        #expect(
            try load(good, environment: ["REDIS_AUTH_PROXY_LOG_FORMAT": "json"])
                .settings.log.format == .json)
        #expect(
            try load("log:\n" + good, flags: ["log-level": "debug"]).settings.log.level == .debug)
    }

    @Test func `an empty variable says nothing`() throws {
        #expect(try load(good, environment: ["REDIS_AUTH_PROXY_THREADS": ""]).settings.threads == 1)
    }

    @Test func `a wrong override names its flag or variable`() {
        #expect(
            problems(good, environment: ["REDIS_AUTH_PROXY_DRAIN_TIMEOUT": "soon"])
                == [
                    "$REDIS_AUTH_PROXY_DRAIN_TIMEOUT: error: drain_timeout: wanted a duration from"
                        + " 0ms to 1d, got \"soon\": begin with digits"
                ])
        #expect(
            problems(good, flags: ["log-format": "xml"]) == [
                "--log-format: error: format: wanted text or json, got \"xml\": correct it, or"
                    + " leave it out for the default, text"
            ])
    }

    @Test func `the settings that can be overridden are these`() {
        #expect(
            SettingOverride.keys.map(\.flag) == [
                "threads", "drain-timeout", "log-level", "log-format",
            ])
    }
}
