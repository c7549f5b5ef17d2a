import Testing
import Transport

@Suite struct EndpointTests {
    @Test(
        "An endpoint is read as it is written",
        arguments: [
            ("127.0.0.1:6379", Endpoint.tcp(host: "127.0.0.1", port: 6379)),
            ("localhost:0", .tcp(host: "localhost", port: 0)),
            (
                "master.my-cache.use1.cache.amazonaws.com:65535",
                .tcp(host: "master.my-cache.use1.cache.amazonaws.com", port: 65535)
            ),
            ("[::1]:6379", .tcp(host: "::1", port: 6379)),
            ("[fe80::1%eth0]:1", .tcp(host: "fe80::1%eth0", port: 1)),
            ("unix:/run/app.sock", .unix(path: "/run/app.sock")),
            ("unix:relative:6379", .unix(path: "relative:6379")),
        ])
    func reads(text: String, expected: Endpoint) throws {
        #expect(try Endpoint(parsing: text) == expected)
    }

    @Test(
        "An endpoint prints as it would be read",
        arguments: ["127.0.0.1:6379", "[::1]:6379", "cache_1.local:80", "unix:/run/app.sock"])
    func printsBack(text: String) throws {
        #expect(try Endpoint(parsing: text).description == text)
    }

    @Test(
        "What is not an endpoint is refused with the reason",
        arguments: [
            ("", "the port is missing"),
            ("6379", "the port is missing"),
            ("localhost", "the port is missing"),
            ("localhost:", "the port is missing"),
            (":6379", "the host is missing"),
            ("::1:6379", "an IPv6 address needs brackets"),
            ("[::1]", "the port is missing"),
            ("[::1:6379", "the bracket is not closed"),
            ("[localhost]:6379", "\"localhost\" is not an IPv6 address"),
            ("[]:6379", "\"\" is not an IPv6 address"),
            ("localhost:65536", "\"65536\" is not a port; a port is a number from 0 to 65535"),
            ("localhost:+1", "\"+1\" is not a port; a port is a number from 0 to 65535"),
            ("localhost:-1", "\"-1\" is not a port; a port is a number from 0 to 65535"),
            ("localhost:6379 ", "\"6379 \" is not a port; a port is a number from 0 to 65535"),
            ("rediss://host:6379", "an IPv6 address needs brackets"),
            (
                "my host:6379",
                "a host name has letters, digits, hyphens, dots and underscores only"
            ),
            ("unix:", "the path is empty"),
        ])
    func refuses(text: String, reason: String) throws {
        let error = try #require(throws: EndpointError.self) { try Endpoint(parsing: text) }
        #expect(error.reason == reason)
        #expect(error.got == text)
    }

    @Test("A Unix path may have 107 bytes and no more")
    func limitsPath() throws {
        let longest = "/" + String(repeating: "p", count: 106)
        #expect(try Endpoint(parsing: "unix:" + longest) == .unix(path: longest))
        let error = try #require(throws: EndpointError.self) {
            try Endpoint(parsing: "unix:" + longest + "p")
        }
        #expect(error.reason == "the path has 108 bytes; a Unix socket's has at most 107")
    }

    @Test("A refusal says what was wanted and what was got")
    func describesRefusal() throws {
        let error = try #require(throws: EndpointError.self) { try Endpoint(parsing: "host") }
        #expect(
            error.description
                == "wanted HOST:PORT, [IPv6]:PORT or unix:PATH, got \"host\": the port is missing")
    }
}

@Suite struct SocketAddressTests {
    @Test(
        "An address in figures prints as an endpoint",
        arguments: [
            ("127.0.0.1", "127.0.0.1:6379"), ("::1", "[::1]:6379"),
            ("2001:DB8:0:0:0:0:0:1", "[2001:db8::1]:6379"),
        ])
    func prints(literal: String, expected: String) throws {
        let address = try #require(SocketAddress(literal: literal, port: 6379))
        #expect(address.description == expected)
        #expect(address.port == 6379)
    }

    @Test(
        "What is not an address in figures is none",
        arguments: ["localhost", "", "127.1", "0x7f.0.0.1", "1.2.3.4.5", "[::1]", ":", "::1::"])
    func refuses(text: String) {
        #expect(SocketAddress(literal: text, port: 1) == nil)
    }

    @Test(
        "Loopback is 127.0.0.0/8, ::1 and both forms of each",
        arguments: [
            ("127.0.0.1", true), ("127.255.0.3", true), ("::1", true), ("::ffff:127.0.0.1", true),
            ("128.0.0.1", false), ("0.0.0.0", false), ("::", false), ("::2", false),
            ("1::1", false), ("::ffff:10.0.0.1", false), ("::1:0:0:1", false),
        ])
    func knowsLoopback(literal: String, expected: Bool) throws {
        let address = try #require(SocketAddress(literal: literal, port: 1))
        #expect(address.isLoopback == expected)
    }

    @Test("Addresses are equal when host and port are")
    func compares() throws {
        let address = try #require(SocketAddress(literal: "127.0.0.1", port: 1))
        #expect(address == SocketAddress(literal: "127.0.0.1", port: 1))
        #expect(address != SocketAddress(literal: "127.0.0.1", port: 2))
        #expect(address != SocketAddress(literal: "127.0.0.2", port: 1))
        #expect(address.with(port: 2) == SocketAddress(literal: "127.0.0.1", port: 2))
        let v6 = try #require(SocketAddress(literal: "::1", port: 1))
        #expect(v6.with(port: 2) == SocketAddress(literal: "::1", port: 2))
    }

    @Test("A Unix address keeps its path, up to 107 bytes")
    func keepsUnixPath() throws {
        let path = "/" + String(repeating: "p", count: 106)
        let address = try #require(SocketAddress(unixPath: path))
        #expect(address.unixPath == path)
        #expect(address.description == "unix:" + path)
        #expect(address.isLoopback)
        #expect(address.port == nil)
        #expect(SocketAddress(unixPath: path + "p") == nil)
        #expect(SocketAddress(unixPath: "") == nil)
        #expect(SocketAddress(unixPath: "a\0b") == nil)
    }
}
