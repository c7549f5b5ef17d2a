// What a client on a listener would get just now.
//
//   connect ► PING ─┬─ PONG, or NOPERM of the server: the way to the server and the login are there
//                   ├─ NOAUTH: the listener wants a login first, which nobody has here
//                   └─ any other answer, or none: not ready, in the words of what was got
//
// One question on a connection of its own, because a proxy that is started again, or reloads, may
// treat the next client in another way. Rejected: HELLO, which the proxy answers without its server.

import Configuration
import Glibc
import Transport

/// Asks one listener.
struct ListenerProbe: Probe {
    let address: ListenerAddress
    let question: ProbeQuestion

    var wanted: String {
        switch question {
        case .ready: "an answer of the server's to PING"
        case .live: "an answer of the proxy's to QUIT"
        }
    }

    func ask(until deadline: Deadline) -> ProbeAnswer {
        guard let target = target else { return .other("an address that cannot be connected to") }
        do throws(ConnectionFailure) {
            let descriptor = try ServerConnection.connect(to: target, until: deadline)
            let connection = try ServerConnection.secure(
                descriptor, context: nil, serverName: "", pool: ChunkPool(), until: deadline)
            return judge(try connection.ask(question == .live ? "QUIT" : "PING", until: deadline))
        } catch {
            switch error.kind {
            case .timeout: return .nothing
            case .closed: return .other("a connection that was closed without an answer")
            case .other: return .other(error.reason)
            }
        }
    }

    private var target: SocketAddress? {
        switch address {
        case .tcp(let host, let port): SocketAddress(literal: host, port: port)
        case .unix(let path): SocketAddress(unixPath: path)
        }
    }

    private func judge(_ reply: ServerReply) -> ProbeAnswer {
        switch (question, reply) {
        // Also of a proxy that lets nobody in just now.
        case (.live, _): return .wanted
        case (.ready, .text) where reply.string == "PONG": return .wanted
        case (.ready, .error(let text)):
            // The proxy itself says NOPERM to a client that no rule admits.
            if text.hasPrefix("NOPERM "), !text.hasPrefix("NOPERM redis-auth-proxy") {
                return .wanted
            }
            if text.hasPrefix("NOAUTH ") { return .wanted }
            return .other(escaped(String(text.prefix(ProbeAnswer.longestText))))
        default: return .other("something that is no answer to PING")
        }
    }
}
