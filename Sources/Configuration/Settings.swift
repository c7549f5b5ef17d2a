// What the proxy is told to do, as plain values: the end of configuration and the start of wiring.
//
// A `Settings` that came out of `Settings.load` is whole and consistent: every reference resolves,
// every number is inside its range. The defaults that stand here are the only ones; the table of
// settings (`SettingsTable`) reads them from here for parsing, help and documentation.

package import Identity
package import Logging
package import Telemetry

/// The whole configuration.
package struct Settings: Sendable, Equatable {
    /// The servers, in the order of the file. Names are unique.
    package var upstreams: [UpstreamSettings] = []
    /// The users we log in as, sorted by name; a position in it is a `UserIndex`.
    package var users: [UserSettings] = []
    /// At least one, in the order of the file.
    package var listeners: [ListenerSettings] = []

    package var threads = 1
    package var connectionsPerWorker = 1
    package var gather = true
    package var maxSessions = 10_000
    package var maxSessionsBeforeLogin = 1_000
    package var loginDeadline: Duration = .seconds(10)
    package var maxPinned = 1_000
    package var loginTimeout: Duration = .seconds(5)
    package var upstreamWait: Duration = .seconds(5)
    package var drainTimeout: Duration = .seconds(10)
    /// The path of a Unix socket; nil: nobody can take over.
    package var handoverSocket: String?
    package var handoverDrainTimeout: Duration = .seconds(600)
    package var replyWindow = ByteCount(1 << 20)
    package var replyBuffer = ByteCount(1 << 19)
    package var slowReaderTimeout: Duration = .seconds(5)
    package var log = LogSettings()
    package var admin = AdminSettings()

    /// Everything at its default, and nobody to serve yet.
    package init() {}

    /// The user's settings; `index` must come from these settings.
    package func user(_ index: UserIndex) -> UserSettings { users[index.rawValue] }

    /// The server that a user is logged in at; `index` must come from these settings.
    package func upstream(of index: UserIndex) -> UpstreamSettings {
        upstreams[users[index.rawValue].upstream]
    }
}

/// How to reach one server.
package struct UpstreamSettings: Sendable, Equatable {
    /// The key under `upstreams`, for logs.
    package var name = ""
    package var address = HostAndPort(host: "", port: 6379)
    package var tls = UpstreamTLS.on(UpstreamTLSSettings())
    package var connectTimeout: Duration = .seconds(5)
    package var keepaliveIdle: Duration = .seconds(30)
    package var keepaliveInterval: Duration = .seconds(10)
    package var keepaliveCount = 3
    package var tcpUserTimeout: Duration = .seconds(30)
    package var reconnectMin: Duration = .milliseconds(50)
    package var reconnectMax: Duration = .seconds(2)
    /// Zero: any.
    package var connectionMaxAge: Duration = .zero

    package init() {}
}

/// Whether the way to the server is encrypted and verified.
package enum UpstreamTLS: Sendable, Equatable {
    /// Plaintext: what is said upstream, the password included, can be read on the way.
    case off
    case on(UpstreamTLSSettings)
}

/// How the server proves who it is, and we to it.
package struct UpstreamTLSSettings: Sendable, Equatable {
    /// Certificates to trust in place of the system's store: a PEM file.
    package var caFile: String?
    /// The name for SNI and for verification, in place of the address's host.
    package var serverName: String?
    package var minVersion = TLSVersion.tls12
    /// A client certificate chain in PEM; set together with `keyFile` or not at all.
    package var certificateFile: String?
    package var keyFile: String?

    package init() {}
}

/// The oldest version of TLS that is spoken.
package enum TLSVersion: String, CaseIterable, Sendable {
    case tls12 = "1.2"
    case tls13 = "1.3"
}

/// An ACL user that the proxy may log in as.
package struct UserSettings: Sendable, Equatable {
    /// The key under `users`, for references and logs.
    package var name = ""
    /// A position in `Settings.upstreams`.
    package var upstream = 0
    /// The ACL user's name as AUTH wants it.
    package var userName = ""
    package var credentials = CredentialSource.passwordFile(path: "")
    /// What the user is meant to be allowed, if the configuration says so.
    package var accessString: AccessString?

    package init() {}
}

/// A place where clients connect, and what becomes of them.
package struct ListenerSettings: Sendable, Equatable {
    package var address = ListenerAddress.unix(path: "")
    package var mode = ListenerMode.multiplexed
    /// The file mode, owner and group of a Unix socket; not for TCP.
    package var socketMode = SocketMode(0o600)
    /// nil: the process's own.
    package var socketOwner: String?
    /// nil: the process's own.
    package var socketGroup: String?
    /// At least one; the first that holds says which user a client becomes.
    package var identities: [IdentityRule] = []
    /// A client that needs no login may send any.
    package var acceptAnyLogin = false

    package init() {}
}

/// How sessions use upstream connections.
package enum ListenerMode: String, CaseIterable, Sendable {
    /// Sessions share upstream connections.
    case multiplexed
    /// Each session has an upstream connection to itself.
    case dedicated
}

/// What is logged, and in which shape.
package struct LogSettings: Sendable, Equatable {
    package var level = Logger.Level.info
    package var format = LogFormat.text

    package init() {}
}

/// Where operators and their programs look at the proxy.
package struct AdminSettings: Sendable, Equatable {
    /// Of the status page, metrics and health; nil: there are none.
    package var address: ListenerAddress?
    /// The path of the console's Unix socket; nil: there is no console.
    package var socket: String?

    package init() {}
}

/// A server's address: a name or an IP address, and a port.
package struct HostAndPort: Sendable, Equatable, CustomStringConvertible {
    /// Without brackets, as a resolver wants it.
    package var host: String
    package var port: UInt16

    package init(host: String, port: UInt16) {
        self.host = host
        self.port = port
    }

    /// As it is written in a configuration: an IPv6 address in brackets.
    package var description: String {
        host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
}

/// Where a listener is bound.
package enum ListenerAddress: Sendable, Hashable {
    /// An IP address in its canonical numeric form, without brackets. Port 0: the kernel chooses.
    case tcp(address: String, port: UInt16)
    /// A path of at most 107 bytes, which is what a `sockaddr_un` holds.
    case unix(path: String)
}

extension ListenerAddress: CustomStringConvertible {
    /// As it is written in a configuration.
    package var description: String {
        switch self {
        case .tcp(let address, let port): HostAndPort(host: address, port: port).description
        case .unix(let path): "unix:\(path)"
        }
    }
}

/// A number of bytes.
package struct ByteCount: Sendable, Hashable, Comparable {
    package var bytes: Int

    package init(_ bytes: Int) {
        self.bytes = bytes
    }

    package static func < (left: ByteCount, right: ByteCount) -> Bool { left.bytes < right.bytes }
}

/// Permission bits of a socket file, 0 to 0777.
package struct SocketMode: Sendable, Hashable {
    package var bits: UInt16

    package init(_ bits: UInt16) {
        self.bits = bits
    }
}
