// Servers that are logged in to: to try a password out, and, where they are one's own, to change users as
// their administrator. Each question has a connection of its own: they are seconds or minutes apart.

import AWS
import Configuration
import Glibc
import Identity
import Rotation
import Server
import Transport

/// How servers are connected to.
struct ServerLogins {
    /// For TCP and TLS of one address, and for each answer.
    private static let patience: Duration = .seconds(10)

    let addresses: [HostAndPort]
    /// nil: that of the address.
    let serverName: String?
    /// nil: plaintext, for the logins of whoever logs in so anyway.
    let tls: TLSContext?
    /// What the server's CLIENT LIST shows.
    let connectionName: String

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
        /// With the answer to HELLO.
        case accepted(ServerConnection, ServerReply)
        case refused(String)
    }

    func login(
        at address: HostAndPort, _ credential: Credential
    ) throws(RotationFailure) -> Login {
        let connection = try connect(to: address)
        let reply = try answer(of: address) { deadline throws(ConnectionFailure) in
            try connection.login(credential, name: connectionName, until: deadline)
        }
        if reply.value("proto") != nil { return .accepted(connection, reply) }
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
                return try ServerConnection.open(
                    to: resolved, context: tls, serverName: serverName ?? address.host
                ) { Deadline(after: Self.patience) }
            } catch {
                failure = error
            }
        }
        throw RotationFailure(
            .unavailable, "\(address): \(failure.reason)", advice: failure.advice)
    }
}

extension ServerLogins: LoginTest {
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

extension ServerLogins {
    /// The server of an upstream, reached as the proxy reaches it.
    ///
    /// - Parameter addresses: in place of the upstream's own.
    init(
        _ upstream: UpstreamSettings, addresses: [HostAndPort] = []
    ) throws(RotationFailure) {
        do {
            let target = try UpstreamTarget(upstream)
            self.init(
                addresses: addresses.isEmpty ? [upstream.address] : addresses,
                serverName: addresses.isEmpty || upstream.hasServerName ? target.serverName : nil,
                tls: target.tls, connectionName: "redis-auth-proxy-users")
        } catch {
            throw RotationFailure(.unusable, "upstream \(upstream.name): \(error)")
        }
    }

    /// An administrator's password is sent over verified TLS only.
    static func wantsTLS(_ upstream: UpstreamSettings) -> RotationFailure {
        RotationFailure(
            .unusable,
            "upstream \(upstream.name) (\(upstream.address)): wanted TLS, got tls: off",
            advice: "an administrator's password is sent over verified TLS only")
    }
}

extension UpstreamSettings {
    fileprivate var hasServerName: Bool {
        if case .on(let tls) = tls { tls.serverName != nil } else { false }
    }
}

extension AWSAccess {
    /// With what the process's environment and the shared files say.
    convenience init(profile: String?) throws(RotationFailure) {
        do throws(AWSFailure) {
            self.init(AWSClient(try AWSSettings(.ofProcess(), profile: profile)))
        } catch {
            throw RotationFailure(error)
        }
    }
}
