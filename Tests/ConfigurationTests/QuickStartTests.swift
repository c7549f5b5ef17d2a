// Flags in place of a file.

import Configuration
import Identity
import Testing

@Suite struct QuickStartTests {
    private func flags(_ change: (inout QuickStart) -> Void = { _ in }) -> QuickStart {
        var flags = QuickStart()
        flags.listen = ["127.0.0.1:6379", "unix:/run/a.sock"]
        flags.upstream = "rediss://cache.example:6380"
        flags.user = "app"
        flags.passwordFile = "/run/secrets/app"
        change(&flags)
        return flags
    }

    private func problems(_ flags: QuickStart) -> [String] {
        do throws(InvalidConfiguration) {
            return try Settings.load(quickStart: flags).warnings.map(\.description)
        } catch {
            return error.diagnostics.map(\.description)
        }
    }

    @Test func `flags alone are the same settings as a file`() throws {
        let file = try load(
            """
            upstreams:
              upstream:
                address: cache.example:6380
                tls: { ca_file: /ca, server_name: name }
            users:
              app: { upstream: upstream, credentials: { password_file: /run/secrets/app } }
            listeners:
              - address: 127.0.0.1:6379
                mode: dedicated
                identities: [{ any: true, user: app }]
              - address: unix:/run/a.sock
                mode: dedicated
                identities: [{ any: true, user: app }]
            """)
        let quick = try Settings.load(
            quickStart: flags {
                ($0.caFile, $0.serverName, $0.mode) = ("/ca", "name", "dedicated")
            })
        #expect(quick.settings == file.settings)
        #expect(quick.warnings == [])
    }

    @Test func `the port of the URL is 6379 if it has none`() throws {
        for url in ["rediss://cache", "rediss://cache/", "rediss://[::1]"] {
            let settings = try Settings.load(quickStart: flags { $0.upstream = url }).settings
            #expect(settings.upstreams[0].address.port == 6_379)
        }
    }

    @Test func `redis means no TLS and draws a warning`() throws {
        let loaded = try Settings.load(quickStart: flags { $0.upstream = "redis://cache:1" })
        #expect(loaded.settings.upstreams[0].tls == .off)
        #expect(loaded.warnings.map(\.position) == [.flag("--upstream")])
    }

    @Test func `TLS flags without TLS are an error`() {
        let found = problems(
            flags { ($0.upstream, $0.caFile) = ("redis://cache:1", "/ca") })
        #expect(found.count == 1)
        #expect(found[0].hasPrefix("--ca-file: error: wanted TLS for it"))
    }

    @Test(arguments: [
        "rediss://app:hunter2@cache:6379", "redis://:hunter2@cache", "hunter2", "https://hunter2",
        "rediss://cache:6379/hunter2", "rediss://cache?password=hunter2", "rediss://hunter2:x",
    ])
    func `a URL that is refused is not repeated`(url: String) {
        let found = problems(flags { $0.upstream = url })
        #expect(found.count == 1)
        #expect(found[0].hasPrefix("--upstream: error: wanted rediss://HOST:PORT"))
        #expect(!found[0].contains("hunter2"))
    }

    @Test func `everything that is missing is named at once`() {
        var given = QuickStart()
        given.mode = "dedicated"
        #expect(
            problems(given).map { $0.prefix { $0 != ":" } } == [
                "--listen", "--upstream", "--user", "--password-file",
            ])
        #expect(given.given == ["--mode"])
    }

    @Test func `wrong values name their flag`() {
        let found = problems(
            flags { ($0.listen, $0.mode) = (["127.0.0.1"], "shared") })
        #expect(
            found == [
                "--listen: error: address: wanted IP-ADDRESS:PORT or unix:PATH, got"
                    + " \"127.0.0.1\": the port is missing",
                "--mode: error: mode: wanted multiplexed or dedicated, got \"shared\": correct it,"
                    + " or leave it out for the default, multiplexed",
            ])
        #expect(
            problems(flags { $0.user = "a b" })[0].hasPrefix("--user: error: users: wanted a name"))
    }

    @Test func `the same address twice is an error`() {
        let found = problems(flags { $0.listen = ["127.0.0.1:1", "127.0.0.1:1"] })
        #expect(found.count == 1)
        #expect(found[0].contains("wanted each address once"))
    }
}
