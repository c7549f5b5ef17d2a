// What a client can get wrong, and what the server says to it.
//
// Every text in the first group is redis-server's, byte for byte. The second group is where we are
// stricter than redis-server 7.0.15, which looks at neither the byte after a header's CR nor at the
// two bytes after a bulk: there a sender and the server can mean different things by the same bytes,
// which is what request smuggling is made of. The third group is closed without a reply.

/// Why a client's bytes are not a request; its connection is closed after the reply, if any.
@usableFromInline
package enum ProtocolViolation: Error, Equatable, Sendable {
    // The server's own verdicts.

    /// The number after `*` is none, or too big.
    case invalidMultibulkLength
    /// The number after `$` is none, negative, or more than `Limits.bulkBytes`.
    case invalidBulkLength
    /// An argument begins with this byte instead of `$`.
    case expectedBulk(got: UInt8)
    /// A line that begins with `*` does not end within `Limits.lineBytes`.
    case tooBigMultibulkCount
    /// An argument's length line does not end within `Limits.lineBytes`.
    case tooBigBulkCount
    /// An inline command does not end within `Limits.lineBytes`.
    case tooBigInline
    /// A quote in an inline command is not closed, or not followed by a space.
    case unbalancedQuotes
    /// More arguments than a client may send that has not logged in.
    case unauthenticatedMultibulkLength
    /// A longer argument than a client may send that has not logged in.
    case unauthenticatedBulkLength

    // Ours, in the server's style.

    /// A header line's CR is not followed by LF.
    case headerWithoutLineFeed
    /// A bulk string is not followed by CR LF.
    case bulkWithoutTerminator
    /// A NUL byte in a line: redis-server looks for the end of a line no further than that.
    case lineWithNUL
    /// A NUL byte behind the name of a command that needs treatment: redis-server may run it as
    /// that command or call it unknown.
    case ambiguousCommand

    // No reply.

    /// A request named POST or Host:, as a browser sends it on an attacker's behalf.
    ///
    /// Source: Redis `server.c`, `processCommand` and `networking.c`, `securityWarningCommand`.
    case crossProtocol
    /// The first bytes of a TLS handshake: the client speaks TLS to a plain port.
    case tlsClientHello

    /// The whole reply, with CR LF; nil where the connection is closed without one.
    ///
    /// Whatever the client sent, this is one line: of its bytes only one is ever repeated, and that
    /// one is replaced by a space unless it is printable ASCII (the server does so with CR and LF).
    package var reply: [UInt8]? {
        var reply = Array("-ERR Protocol error: ".utf8)
        switch self {
        case .invalidMultibulkLength: reply += "invalid multibulk length".utf8
        case .invalidBulkLength: reply += "invalid bulk length".utf8
        case .expectedBulk(let byte):
            reply += "expected '$', got '".utf8
            reply.append((0x20...0x7E).contains(byte) ? byte : 0x20)
            reply += "'".utf8
        case .tooBigMultibulkCount: reply += "too big mbulk count string".utf8
        case .tooBigBulkCount: reply += "too big bulk count string".utf8
        case .tooBigInline: reply += "too big inline request".utf8
        case .unbalancedQuotes: reply += "unbalanced quotes in request".utf8
        case .unauthenticatedMultibulkLength: reply += "unauthenticated multibulk length".utf8
        case .unauthenticatedBulkLength: reply += "unauthenticated bulk length".utf8
        case .headerWithoutLineFeed: reply += "expected LF after CR".utf8
        case .bulkWithoutTerminator: reply += "expected CRLF after bulk".utf8
        case .lineWithNUL: reply += "unexpected NUL in line".utf8
        case .ambiguousCommand: reply += "unexpected NUL in command name".utf8
        case .crossProtocol, .tlsClientHello: return nil
        }
        reply += "\r\n".utf8
        return reply
    }

    /// What happened, for the log; never holds a byte the client sent.
    package var operatorDescription: String {
        switch self {
        case .invalidMultibulkLength:
            "malformed request: the number of arguments after '*' is not a number from 0 to "
                + "\(Limits.multibulkCount)"
        case .invalidBulkLength:
            "malformed request: the length of an argument after '$' is not a number from 0 to "
                + "\(Limits.bulkBytes)"
        case .expectedBulk(let byte):
            "malformed request: an argument begins with byte \(byte) where '$' (36) was wanted"
        case .tooBigMultibulkCount:
            "malformed request: a line beginning with '*' is longer than \(Limits.lineBytes) bytes"
        case .tooBigBulkCount:
            "malformed request: the length line of an argument is longer than "
                + "\(Limits.lineBytes) bytes"
        case .tooBigInline:
            "malformed request: an inline command is longer than \(Limits.lineBytes) bytes; "
                + "is the client speaking another protocol?"
        case .unbalancedQuotes:
            "malformed request: an inline command with a quote that is not closed"
        case .unauthenticatedMultibulkLength:
            "a request with too many arguments from a client that has not logged in"
        case .unauthenticatedBulkLength:
            "a request with too long an argument from a client that has not logged in"
        case .headerWithoutLineFeed:
            "malformed request: the CR of a length line is not followed by LF"
        case .bulkWithoutTerminator:
            "malformed request: an argument is not followed by CR LF; its length is wrong"
        case .lineWithNUL:
            "malformed request: a NUL byte in a line; is the client speaking another protocol?"
        case .ambiguousCommand:
            "malformed request: a command name with a NUL byte in it"
        case .crossProtocol:
            "possible attack: a request named POST or Host:, as a browser sends it; the client "
                + "speaks HTTP to a Redis port"
        case .tlsClientHello:
            "the client began a TLS handshake; this port speaks plain RESP, turn TLS off in the "
                + "client"
        }
    }
}
