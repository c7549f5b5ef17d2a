import Testing

@testable import Admin

@Suite("The console")
struct ConsoleTableTests {
    private var table: ConsoleTable {
        var table = ConsoleTable("user", "sessions", "paused", "failure")
        table.add(.text("app"), .number(12), .flag(false), .none)
        table.add(.text("reporting"), .number(3), .flag(true), .text("a\r\nb"))
        return table
    }

    private func text(_ reply: ConsoleReply, _ version: Int) -> String {
        String(decoding: reply.bytes(protocolVersion: version), as: UTF8.self)
    }

    @Test("A table is lines for people, each a line whatever is in it")
    func lines() {
        let expected = [
            "user       sessions  paused  failure",
            "app        12        no      -",
            "reporting  3         yes     a??b",
        ]
        #expect(table.lines == expected)
        #expect(text(.table(table), 2) == "*3\r\n" + expected.map { "+\($0)\r\n" }.joined())
    }

    @Test("A table is maps for programs, with numbers, truth values and nulls")
    func maps() {
        let reply = text(.table(table), 3)
        #expect(reply.hasPrefix("*2\r\n%4\r\n$4\r\nuser\r\n$3\r\napp\r\n$8\r\nsessions\r\n:12\r\n"))
        #expect(reply.contains("$6\r\npaused\r\n#f\r\n$7\r\nfailure\r\n_\r\n"))
        #expect(reply.hasSuffix("$4\r\na\r\nb\r\n"))
    }

    @Test("An error is one line")
    func error() {
        #expect(text(.error("wanted this,\r\ngot that"), 2) == "-ERR wanted this,??got that\r\n")
    }

    private func feed(_ requests: inout ConsoleRequests, _ text: String) {
        Array(text.utf8).withUnsafeBytes { requests.append($0) }
    }

    @Test("Requests are multibulk or inline, in any pieces")
    func requests() {
        var requests = ConsoleRequests()
        for byte in "*2\r\n$4\r\nSHOW\r\n$5\r\nUSERS\r\n" {
            #expect(requests.next() == .incomplete)
            feed(&requests, String(byte))
        }
        #expect(requests.next() == .request(["SHOW", "USERS"]))
        feed(&requests, "\r\npause \"my user\"\r\nPING\r\n")
        #expect(requests.next() == .request(["pause", "my user"]))
        #expect(requests.next() == .request(["PING"]))
        #expect(requests.next() == .incomplete)
    }

    @Test("What is no request, or too long, is answered with what was wanted")
    func broken() {
        var requests = ConsoleRequests()
        feed(&requests, "*x\r\n")
        guard case .broken(let text) = requests.next() else {
            Issue.record("it is taken for a request")
            return
        }
        #expect(text.hasPrefix("wanted a request in RESP, got "))
        var long = ConsoleRequests()
        feed(&long, "*1\r\n$100000\r\n" + String(repeating: "a", count: 20_000))
        #expect(
            long.next() == .broken("wanted a request of at most 16384 bytes, got a longer one"))
    }
}
