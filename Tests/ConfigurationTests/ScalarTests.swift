// Texts to values: what is accepted, what is refused, and that nothing overflows.

import Configuration
import Testing

@Suite struct ScalarTests {
    @Test(arguments: [
        ("500ms", Duration.milliseconds(500)), ("5s", .seconds(5)), ("2m", .seconds(120)),
        ("8h", .seconds(28_800)), ("1d", .seconds(86_400)), ("0s", .zero), ("007s", .seconds(7)),
    ])
    func `a duration is digits and a unit`(text: String, wanted: Duration) throws {
        #expect(try Duration(setting: text) == wanted)
    }

    @Test(arguments: [
        "", "s", "5", "5 s", " 5s", "5s ", "-5s", "+5s", "1.5s", "5S", "5sec", "1m30s", "٣s", "5µs",
        "99999999999999999999s", "9223372036854775807d",
    ])
    func `anything else is no duration`(text: String) {
        #expect(throws: Unwanted.self) { try Duration(setting: text) }
    }

    @Test(arguments: [
        ("0B", 0), ("512B", 512), ("64KiB", 65_536), ("1MiB", 1_048_576), ("2GiB", 2_147_483_648),
    ])
    func `a size is digits and a unit`(text: String, wanted: Int) throws {
        #expect(try ByteCount(setting: text) == ByteCount(wanted))
    }

    @Test(arguments: [
        "", "1", "KiB", "1KB", "1kb", "1 MiB", "-1B", "1.5MiB", "9223372036854775807GiB",
        "99999999999999999999B",
    ])
    func `anything else is no size`(text: String) {
        #expect(throws: Unwanted.self) { try ByteCount(setting: text) }
    }

    @Test(arguments: ["", "-1", "+1", "1.0", "1e3", "0x10", "1_000", " 1", "99999999999999999999"])
    func `a number is digits only`(text: String) {
        #expect(throws: Unwanted.self) { try Int(setting: text) }
    }

    @Test(arguments: ["yes", "no", "on", "off", "True", "TRUE", "1", "y", ""])
    func `a boolean is true or false and no other word`(text: String) {
        #expect(throws: Unwanted.self) { try Bool(setting: text) }
    }

    @Test func `a socket mode is octal`() throws {
        #expect(try SocketMode(setting: "0600") == SocketMode(0o600))
        #expect(try SocketMode(setting: "660") == SocketMode(0o660))
        for text in ["", "6", "0888", "1777", "00600", "0o600", "-600"] {
            #expect(throws: Unwanted.self, "\(text)") { try SocketMode(setting: text) }
        }
    }

    @Test func `what is shown as a default reads back as the same value`() throws {
        for duration: Duration in [
            .zero, .milliseconds(1), .milliseconds(1_500), .seconds(90), .seconds(7_200),
            .seconds(172_800),
        ] {
            #expect(try Duration(setting: duration.settingText) == duration)
        }
        for bytes in [0, 1, 1_023, 1_024, 1_048_576, 3 << 30] {
            #expect(try ByteCount(setting: ByteCount(bytes).settingText) == ByteCount(bytes))
        }
        #expect(SocketMode(0o7).settingText == "0007")
    }
}

@Suite struct AddressTests {
    @Test(arguments: [
        ("127.0.0.1:6379", ListenerAddress.tcp(address: "127.0.0.1", port: 6379)),
        ("localhost:1", .tcp(address: "127.0.0.1", port: 1)),
        ("[0:0::1]:0", .tcp(address: "::1", port: 0)),
        ("unix:/run/a.sock", .unix(path: "/run/a.sock")),
        ("unix:relative", .unix(path: "relative")),
    ])
    func `a listener's address is numeric or a path`(text: String, wanted: ListenerAddress) throws {
        #expect(try ListenerAddress(setting: text) == wanted)
    }

    @Test(arguments: [
        "", ":", ":6379", "6379", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1",
        "127.0.0.1:+1", "127.0.0.256:1", "::1:6379", "[::1]", "[::1:6379", "[127.0.0.1]:1",
        "[fe80::1%eth0]:1", "example.org:1", "*:1", "unix:", "/run/a.sock", "127.0.0.1:1 ",
    ])
    func `anything else is no listener's address`(text: String) {
        #expect(throws: Unwanted.self) { try ListenerAddress(setting: text) }
    }

    @Test func `a socket path has at most 107 bytes`() throws {
        let longest = "/" + String(repeating: "a", count: 106)
        #expect(try ListenerAddress(setting: "unix:\(longest)") == .unix(path: longest))
        #expect(throws: Unwanted.self) { try ListenerAddress(setting: "unix:\(longest)a") }
    }

    @Test(arguments: [
        ("cache:6379", HostAndPort(host: "cache", port: 6379)),
        ("a_b.c-d.e:1", HostAndPort(host: "a_b.c-d.e", port: 1)),
        ("[::1]:65535", HostAndPort(host: "::1", port: 65_535)),
    ])
    func `a server's address is a host and a port`(text: String, wanted: HostAndPort) throws {
        #expect(try HostAndPort(setting: text) == wanted)
    }

    @Test(arguments: [
        "", "cache", "cache:0", "cache:x", "ca che:1", "rediss://cache:6379", "user@cache:1",
        "::1:6379", "[cache]:1", "unix:/x", "caché:1",
    ])
    func `anything else is no server's address`(text: String) {
        #expect(throws: Unwanted.self) { try HostAndPort(setting: text) }
    }

    @Test func `a host name has at most 253 bytes`() throws {
        let longest = String(repeating: "a", count: 253)
        #expect(try HostAndPort(setting: "\(longest):1").host == longest)
        #expect(throws: Unwanted.self) { try HostAndPort(setting: "\(longest)a:1") }
    }

    @Test(arguments: [
        ("127.0.0.1:1", true), ("127.9.9.9:1", true), ("[::1]:1", true), ("unix:/x", true),
        ("[::ffff:127.0.0.1]:1", true), ("0.0.0.0:1", false), ("[::]:1", false),
        ("192.0.2.1:1", false), ("[127::1]:1", false),
    ])
    func `loopback and Unix sockets are local`(text: String, isLocal: Bool) throws {
        #expect(try ListenerAddress(setting: text).isLocal == isLocal)
    }
}
