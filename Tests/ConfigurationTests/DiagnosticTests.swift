// What is said about a configuration that is wrong: every problem, at its place.

import Configuration
import Testing

@Suite struct DiagnosticTests {
    @Test func `every problem is reported at once, from top to bottom`() {
        let found = problems(
            """
            threads: many
            thread: 2
            upstreams:
              cache:
                adress: cache:6379
                connect_timeout: 5
            users:
              app:
                upstream: cash
                credentials: { password_file: f, password_env: G }
            listeners:
              - address: 127.0.0.1:6379
                identities:
                  - { any: yes, user: ap }
            log: { level: loud }
            """)
        #expect(
            found == [
                "c.yaml:1:10: error: threads: wanted a number from 1 to 256, got \"many\":"
                    + " write digits only",
                "c.yaml:2:1: error: the configuration: wanted a known key, got \"thread\":"
                    + " did you mean threads?",
                "c.yaml:5:5: error: upstream cache: wanted a known key, got \"adress\":"
                    + " did you mean address?",
                "c.yaml:5:5: error: upstream cache: wanted the key address (HOST:PORT), got none:"
                    + " add it",
                "c.yaml:6:22: error: connect_timeout: wanted a duration from 1ms to 10m, got \"5\":"
                    + " write the unit, for example 5s",
                "c.yaml:9:15: error: wanted an upstream that exists, got \"cash\":"
                    + " the names are cache",
                "c.yaml:10:18: error: credentials of app: wanted one of password_file, password_env,"
                    + " iam and secrets_manager, got 2",
                "c.yaml:14:16: error: any: wanted true, got \"yes\": write true or false",
                "c.yaml:14:27: error: wanted a user that exists, got \"ap\": did you mean app?",
                "c.yaml:15:15: error: level: wanted trace, debug, info, notice, warning, error,"
                    + " critical, got \"loud\": correct it, or leave it out for the default, info",
            ])
    }

    @Test func `what the kernel counts in seconds is whole seconds`() {
        let found = problems(
            good.replacing("address: cache", with: "keepalive_idle: 1500ms\n    address: cache"))
        #expect(
            found == [
                "c.yaml:3:21: error: keepalive_idle: wanted a duration from 1s to 32767s, got"
                    + " \"1500ms\": write whole seconds"
            ])
    }

    @Test func `an empty file wants the three things that every configuration has`() {
        for text in ["", "# nothing\n", "---\n"] {
            let found = problems(text)
            #expect(found.count == 1, "\(text)")
            #expect(found[0].contains("wanted a mapping, got nothing"))
        }
        let found = problems("threads: 1\n")
        #expect(found.map { $0.contains("wanted the key") } == [true, true, true])
    }

    @Test func `a value out of range is told the range and the default`() {
        #expect(
            problems(good + "login_timeout: 2h\n") == [
                "c.yaml:12:16: error: login_timeout: wanted a duration from 1ms to 1h, got \"2h\":"
                    + " correct it, or leave it out for the default, 5s"
            ])
        #expect(problems(good + "threads: 0\n").count == 1)
        #expect(problems(good + "reply_window: 1B\n").count == 1)
        #expect(problems(good + "max_sessions: 99999999999999999999\n").count == 1)
    }

    @Test func `a key that belongs elsewhere is told where`() {
        let found = problems(
            good.replacing("address: cache", with: "ca_file: /ca\n    address: cache"))
        #expect(
            found == [
                "c.yaml:3:5: error: upstream cache: wanted a known key, got \"ca_file\":"
                    + " it belongs under upstreams.NAME.tls"
            ])
    }

    @Test func `a key without a value is not its default`() {
        let found = problems(good + "threads:\n")
        #expect(found.count == 1)
        #expect(found[0].hasPrefix("c.yaml:12:9: error: threads: wanted a number"))
        #expect(found[0].contains("got nothing"))
    }

    @Test func `a section whose keys are all commented out is at its defaults`() throws {
        let text = good.replacing("address: cache", with: "tls:\n    address: cache")
        #expect(try load("log:\n" + text).settings == load(good).settings)
    }

    @Test func `a structure where a text belongs, and the other way round`() {
        #expect(
            problems(good + "threads: [1]\n")[0].contains(
                "wanted a number from 1 to 256, got a list"))
        #expect(problems(good + "log: verbose\n")[0].contains("log: wanted a mapping, got a text"))
        let listeners = problems(good.replacing("- address", with: "  address"))
        #expect(
            listeners[0].contains(
                "listeners: wanted a list with at least one listener, got a mapping"))
    }

    @Test func `empty lists and mappings are not enough`() {
        #expect(
            problems(good.replacing("- { any: true, user: app }", with: "[]")).contains {
                $0.contains("identities: wanted a list with at least one rule, got an empty one")
            })
        #expect(problems("upstreams: {}\nusers: {}\nlisteners: []\n").count == 3)
    }

    @Test func `credentials want a source`() {
        let found = problems(good.replacing("{ password_file: /run/secrets/app }", with: "{}"))
        #expect(
            found == [
                "c.yaml:7:18: error: credentials of app: wanted one of password_file, password_env,"
                    + " iam and secrets_manager, got none"
            ])
    }

    @Test func `a certificate wants its key`() {
        let found = problems(
            good.replacing("address: cache", with: "tls: { key_file: k }\n    address: cache"))
        #expect(
            found == [
                "c.yaml:3:10: error: tls: wanted certificate_file and key_file together, got one of"
                    + " them: add the other"
            ])
    }

    @Test func `the longest pause is not shorter than the shortest`() {
        let found = problems(
            good.replacing("address: cache", with: "reconnect_max: 1ms\n    address: cache"))
        #expect(found.count == 1)
        #expect(found[0].contains("wanted reconnect_max of at least reconnect_min (50ms), got 1ms"))
    }

    @Test(arguments: [
        ("/run/a.sock", "wanted a path of its own"), ("unix:/run/b.sock", "write the path alone"),
        ("/\(String(repeating: "x", count: 107))", "at most 107 bytes"), ("", "write it, or leave"),
    ])
    func `the socket of the hand-over is a path, and no listener's`(path: String, what: String) {
        let found = problems(
            good + "  - { address: \"unix:/run/a.sock\", identities: [{ any: true, user: app }] }\n"
                + "handover_socket: \"\(path)\"\n")
        #expect(found.count == 1)
        #expect(found.first?.hasPrefix("c.yaml:13:18: error: handover_socket: ") == true)
        #expect(found.first?.contains(what) == true, "\(found)")
    }

    @Test(arguments: [
        "127.0.0.1:6379", "localhost:6379", "0.0.0.0:6379",
    ])
    func `an address is listened on once`(address: String) {
        let found = problems(
            good + "  - { address: \"\(address)\", identities: [{ any: true, user: app }] }\n")
        #expect(
            found.contains {
                $0.hasPrefix("c.yaml:12:16: error: address: wanted each address once")
                    && $0.contains("collides with 127.0.0.1:6379 at c.yaml:9:14")
            })
    }

    @Test func `port 0 may be asked for twice`() {
        let more = "  - { address: \"127.0.0.1:0\", identities: [{ any: true, user: app }] }\n"
        #expect(problems(good + more + more) == [])
    }

    @Test func `socket permissions want a socket`() {
        let found = problems(good + "    socket_mode: 0600\n")
        #expect(found.count == 1)
        #expect(found[0].hasPrefix("c.yaml:12:5: error: socket_mode: wanted a Unix socket"))
    }

    @Test func `a listener that others can reach draws a warning`() throws {
        let text = good.replacing("127.0.0.1:6379", with: "0.0.0.0:6379")
        let loaded = try load(text)
        #expect(loaded.warnings.count == 1)
        #expect(loaded.warnings[0].severity == .warning)
        #expect(loaded.warnings[0].position == .file("c.yaml", line: 9, column: 14))
        #expect(loaded.warnings[0].message.contains("can be reached from other machines"))
    }

    @Test func `an upstream without TLS draws a warning`() throws {
        let loaded = try load(
            good.replacing("address: cache", with: "tls: off\n    address: cache"))
        #expect(loaded.warnings.map(\.position) == [.file("c.yaml", line: 3, column: 10)])
        #expect(loaded.warnings[0].message.contains("without TLS"))
    }

    @Test func `what is configured and not used draws a warning`() throws {
        let loaded = try load(
            good.replacing(
                "users:",
                with: """
                      spare: { address: "h:1" }
                    users:
                      idle: { upstream: cache, credentials: { password_env: IDLE } }
                    """))
        #expect(
            loaded.warnings.map(\.description) == [
                "c.yaml:4:3: warning: upstream spare is named by no user: nothing is sent to it",
                "c.yaml:6:3: warning: user idle is named by no listener: nobody can become it",
            ])
    }

    @Test func `a rule behind one that always holds draws a warning`() throws {
        let loaded = try load(good + "      - { any: true, user: app }\n")
        #expect(loaded.warnings.map(\.position) == [.file("c.yaml", line: 12, column: 9)])
    }

    @Test func `files that cannot be read draw warnings when asked for`() throws {
        let text = good.replacing("/run/secrets/app", with: "/nonexistent/password")
            .replacing(
                "address: cache", with: "tls: { ca_file: /nonexistent/ca }\n    address: cache")
        #expect(try load(text).warnings == [])
        #expect(
            try load(text, checksFiles: true).warnings.map(\.description) == [
                "c.yaml:3:21: warning: ca_file: \"/nonexistent/ca\" cannot be read now:"
                    + " No such file or directory",
                "c.yaml:8:35: warning: password_file: \"/nonexistent/password\" cannot be read now:"
                    + " No such file or directory",
            ])
        let variable = good.replacing(
            "password_file: /run/secrets/app", with: "password_env: RAP_X")
        #expect(
            try load(variable, checksFiles: true).warnings.map(\.message) == [
                "password_env: the variable RAP_X is not set here"
            ])
    }

    @Test func `what may be a secret is not repeated`() {
        let texts = [
            good.replacing("cache.example:6380", with: "\"redis://u:hunter2@cache:6379\""),
            good.replacing("password_file: /run/secrets/app", with: "password_env: hunter2!"),
            good.replacing("{ password_file: /run/secrets/app }", with: "hunter2"),
        ]
        for text in texts {
            let found = problems(text)
            #expect(!found.isEmpty)
            #expect(!found.joined().contains("hunter2"), "\(found)")
        }
    }

    @Test func `a message is one line, whatever is quoted in it`() {
        let found = problems("\"a\\nb\\e[2J\\u2028\": 1\n" + good)
        #expect(found.count == 1)
        #expect(found[0].unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value < 0x2000 })
        let long = problems("\(String(repeating: "x", count: 1_000)): 1\n" + good)
        // The names of all keys are in it.
        #expect(long[0].utf8.count < 600)
    }
}
