// What the data plane is started with: values only, ready to use, nothing left to look up.

package import Identity
package import Proxy
package import Transport

/// One server that users log in to.
package struct UpstreamTarget: Sendable {
    /// The configuration's name for it; appears in the log.
    package var name: String
    /// Resolved anew at each connect.
    package var host: String
    package var port: UInt16
    /// Whom the certificate must be for, and what is sent as SNI.
    package var serverName: String
    /// nil: plaintext, because the operator said `tls: off`.
    package var tls: TLSContext?
    /// For one address, TCP and TLS handshake together.
    package var connectTimeout: Duration
    package var keepAlive: KeepAlive
    /// TCP_USER_TIMEOUT; zero leaves it to the system.
    package var userTimeout: Duration
    /// Pause before the second attempt to connect; doubles with each failure.
    package var reconnectMinimum: Duration
    /// The pause does not grow beyond this.
    package var reconnectMaximum: Duration
    /// A connection that is older is replaced. nil: never.
    package var connectionMaximumAge: Duration?

    package init(
        name: String,
        host: String,
        port: UInt16,
        serverName: String,
        tls: TLSContext?,
        connectTimeout: Duration,
        keepAlive: KeepAlive,
        userTimeout: Duration,
        reconnectMinimum: Duration,
        reconnectMaximum: Duration,
        connectionMaximumAge: Duration? = nil
    ) {
        self.name = name
        self.host = host
        self.port = port
        self.serverName = serverName
        self.tls = tls
        self.connectTimeout = connectTimeout
        self.keepAlive = keepAlive
        self.userTimeout = userTimeout
        self.reconnectMinimum = reconnectMinimum
        self.reconnectMaximum = reconnectMaximum
        self.connectionMaximumAge = connectionMaximumAge
    }

    var address: String { host.utf8.contains(58) ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// One RBAC user that the proxy may become. Its index is its `UserIndex`.
package struct UpstreamUser: Sendable {
    /// The configuration's name for it.
    package var name: String
    /// The name it logs in with.
    package var userName: String
    /// Where its credential comes from, in words for the log.
    package var source: String
    /// It logs in with tokens of AWS's IAM.
    package var isIAM = false
    /// Index into `targets`.
    package var target: Int

    package init(name: String, userName: String, source: String, target: Int) {
        self.name = name
        self.userName = userName
        self.source = source
        self.target = target
    }
}

/// One place to listen on, and what its clients become.
package struct Listener: Sendable {
    package var endpoint: Endpoint
    package var options: ListenOptions
    /// In the order in which they are tried; a client for which none holds is refused.
    package var rules: [IdentityRule]
    /// A client that needs no login may send any.
    package var acceptsAnyLogin: Bool
    /// One upstream connection per client.
    package var isDedicated: Bool

    package init(
        endpoint: Endpoint,
        options: ListenOptions,
        rules: [IdentityRule],
        acceptsAnyLogin: Bool = false,
        isDedicated: Bool
    ) {
        self.endpoint = endpoint
        self.options = options
        self.rules = rules
        self.acceptsAnyLogin = acceptsAnyLogin
        self.isDedicated = isDedicated
    }
}

/// Everything that a `Server` needs.
package struct ServerConfiguration: Sendable {
    package var targets: [UpstreamTarget]
    package var users: [UpstreamUser]
    package internal(set) var listeners: [Listener]
    /// The rules of all listeners. Sessions of two of them never share an upstream connection.
    package internal(set) var routes: [NumberedRule] = []
    /// By listener: the numbers of its rules, in their order.
    package internal(set) var routesOfListener: [[Int]] = []
    /// Worker threads, at least 1.
    package var threads: Int
    /// Workers wait a little for more to do while many clients are active; see `GatherWindow`.
    package var gathers = true
    /// Bounds of each worker.
    package var limits: Limits
    /// Clients at the same time, in all workers.
    package var maximumSessions: Int
    /// Clients at the same time that must log in and have not.
    package var maximumSessionsBeforeLogin: Int

    package init(
        targets: [UpstreamTarget],
        users: [UpstreamUser],
        listeners: [Listener],
        threads: Int,
        limits: Limits,
        maximumSessions: Int,
        maximumSessionsBeforeLogin: Int = 1_000
    ) {
        self.targets = targets
        self.users = users
        self.listeners = listeners
        self.threads = threads
        self.limits = limits
        self.maximumSessions = maximumSessions
        self.maximumSessionsBeforeLogin = maximumSessionsBeforeLogin
        number(after: [])
    }
}

/// A rule and where it stands; its number is that of its route in each worker's router.
package struct NumberedRule: Sendable {
    package let listener: Int
    package let rule: IdentityRule
    /// The mode of its listener.
    package let isDedicated: Bool
    /// Its listener's, too.
    package let acceptsAnyLogin: Bool
    /// It was a rule of an earlier configuration and is none of this: no client becomes it.
    package internal(set) var isRetired = false
}
