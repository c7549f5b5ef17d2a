// The servers of a rotation: where a new password is tried out, and, if they are one's own, where it is
// set. Each question has a connection of its own, over verified TLS: they are seconds or minutes apart.

import AWS
import Configuration
import Glibc
import Identity
import Rotation
import Transport

/// How servers are connected to.
struct RotationServers {
    /// For TCP and TLS of one address, and for each answer.
    private static let patience: Duration = .seconds(10)
    private static let connectionName = "redis-auth-proxy-rotate"

    let addresses: [HostAndPort]
    /// nil: that of the address.
    let serverName: String?
    let tls: TLSContext

    /// Reads `rediss://HOST[:PORT]`.
    static func address(_ url: String) throws(RotationFailure) -> HostAndPort {
        let parsed: (address: HostAndPort, isTLS: Bool)
        do throws(Unwanted) {
            parsed = try parseUpstreamURL(url)
        } catch {
            throw RotationFailure(
                .unusable, "server: wanted rediss://HOST[:PORT]", advice: error.advice)
        }
        guard parsed.isTLS else {
            throw RotationFailure(
                .unusable, "server \(parsed.address): wanted rediss://, got redis://",
                advice: "passwords are sent over verified TLS only")
        }
        return parsed.address
    }

    /// In words.
    var name: String { addresses.map { "\($0)" }.joined(separator: ", ") }

    /// A connection that is logged in, or the server's refusal.
    enum Login {
        case accepted(ServerConnection)
        case refused(String)
    }

    func login(
        at address: HostAndPort, _ credential: Credential
    ) throws(RotationFailure) -> Login {
        let connection = try connect(to: address)
        let reply = try answer(of: address) { deadline throws(ConnectionFailure) in
            try connection.login(credential, name: Self.connectionName, until: deadline)
        }
        if reply.value("proto") != nil { return .accepted(connection) }
        guard case .error(let words) = reply else {
            throw RotationFailure(
                .unavailable, "\(address): its answer is not an answer to HELLO",
                advice: "it must be Redis 6 or later, or Valkey")
        }
        // Other errors say that nobody can log in now: LOADING, too many clients.
        guard words.hasPrefix("WRONGPASS") else {
            throw RotationFailure(.unavailable, "\(address): the server said: \(escaped(words))")
        }
        return .refused(escaped(words))
    }

    func ask(
        _ connection: ServerConnection, at address: HostAndPort, _ arguments: [String]
    ) throws(RotationFailure) -> ServerReply {
        try answer(of: address) { deadline throws(ConnectionFailure) in
            try connection.ask(arguments, until: deadline)
        }
    }

    private func answer(
        of address: HostAndPort, _ ask: (Deadline) throws(ConnectionFailure) -> ServerReply
    ) throws(RotationFailure) -> ServerReply {
        do throws(ConnectionFailure) {
            return try ask(Deadline(after: Self.patience))
        } catch {
            throw RotationFailure(.unavailable, "\(address): \(error)", advice: error.advice)
        }
    }

    private func connect(to address: HostAndPort) throws(RotationFailure) -> ServerConnection {
        let resolved: [SocketAddress]
        switch Resolver.lookUp(host: address.host, port: address.port) {
        case .success(let addresses): resolved = addresses
        case .failure(let error): throw RotationFailure(.unavailable, "\(address): \(error)")
        }
        var failure = ConnectionFailure(reason: "the name has no address")
        for resolved in resolved {
            do throws(ConnectionFailure) {
                let descriptor = try ServerConnection.connect(
                    to: resolved, until: Deadline(after: Self.patience))
                return try ServerConnection.secure(
                    descriptor, context: tls, serverName: serverName ?? address.host,
                    pool: ChunkPool(), until: Deadline(after: Self.patience))
            } catch {
                failure = error
            }
        }
        throw RotationFailure(
            .unavailable, "\(address): \(failure.reason)", advice: failure.advice)
    }
}

extension RotationServers: LoginTest {
    /// Accepted if all servers accept it.
    func login(_ userName: String, _ password: Secret) throws(RotationFailure) -> LoginAnswer {
        for address in addresses {
            let credential = Credential(userName: userName, secret: password)
            if case .refused(let words) = try login(at: address, credential) {
                return .refused(addresses.count == 1 ? words : "\(address): \(words)")
            }
        }
        return .accepted
    }
}
