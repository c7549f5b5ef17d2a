// One login at an upstream, over a connection of its own, as the data plane would make it: the addresses
// of the name one after the other, until a server answers.

import AWS
import Configuration
import Identity
import Server
import Transport

/// See the head of this file. Blocks.
struct UpstreamLogin {
    /// How the connection appears in CLIENT LIST.
    private static let connectionName = "redis-auth-proxy-check"

    /// A connection whose login was answered, if not accepted.
    struct Answered {
        let connection: ServerConnection
        let hello: ServerReply

        var isAccepted: Bool { hello.value("proto") != nil }
    }

    let upstream: UpstreamSettings
    let credential: Credential
    /// For the answer to the login; connecting has the upstream's.
    let timeout: Duration
    var cancellation: Cancellation?

    /// - Throws: what was in the way at each address. Certificates are read anew, as their files may have
    ///   changed.
    func attempt(at addresses: [SocketAddress]) throws(ConnectionFailure) -> Answered {
        let target: UpstreamTarget
        do {
            target = try UpstreamTarget(upstream)
        } catch {
            throw ConnectionFailure(reason: "\(error)")
        }
        var reasons: [String] = []
        for address in addresses {
            do throws(ConnectionFailure) {
                let connection = try ServerConnection.open(
                    to: address, context: target.tls, serverName: target.serverName
                ) { deadline(upstream.connectTimeout) }
                let hello = try connection.login(
                    credential, name: Self.connectionName, until: deadline(timeout))
                return Answered(connection: connection, hello: hello)
            } catch {
                reasons.append("\(address): \(error.reason)")
            }
        }
        throw ConnectionFailure(reason: reasons.joined(separator: "; "))
    }

    func deadline(_ duration: Duration) -> Deadline {
        Deadline(after: duration, unless: cancellation)
    }
}
