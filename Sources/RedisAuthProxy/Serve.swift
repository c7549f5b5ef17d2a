// From settings to a running proxy: the one place where the control plane and the data plane meet.
//
//     Settings ──► ServerConfiguration ──► Server ◄── snapshots ── LiveCredentials ◄── CredentialStore
//                                             └────── refresh ────────►     └────── refresh ───►

import Admin
import Configuration
import Credentials
import Identity
import Logging
import Proxy
import Server
import Telemetry
import Transport

/// Runs the data plane until SIGTERM or SIGINT, then drains it.
///
/// The calling thread must have blocked both signals, and SIGHUP if there is a `load`, before any
/// other thread was started.
/// - Parameters:
///   - load: reads the settings again, for SIGHUP; nil leaves that signal alone.
///   - credentials: in use already, so that every user has a first snapshot.
///   - clusters: told of logins and reloads.
///   - recent: what the logger keeps of its warnings and errors, for the status page.
///   - logPolicy: that of `logger`, for SIGHUP.
///   - manager: what the service manager said.
///   - whenReady: called once all listeners are bound, with what each is bound to.
/// - Returns: how many sessions had to be ended because `drain_timeout` passed.
/// - Throws: `ServerError`, `TLSContextError`, `AdminFailure`, what `Inheritance` throws, or
///   `SystemError` if there is no descriptor for signals.
func serve(
    _ settings: Settings,
    load: (() throws(InvalidConfiguration) -> LoadedSettings)?,
    environment: PasswordEnvironment,
    credentials: LiveCredentials,
    clusters: ClusterCheck,
    recent: RecentRecords,
    logger: Logger,
    logPolicy: LogPolicy,
    manager: ServiceManager,
    whenReady: ([[SocketAddress]]) -> Void
) throws -> Int {
    let configuration = try ServerConfiguration(settings)
    let inheritance = try Inheritance(
        settings, manager: manager, credentials: credentials, logger: logger)
    let server = try Server(
        configuration,
        credentials: settings.users.indices.map { credentials.snapshot(of: UserIndex($0)) },
        logger: logger,
        readPassword: readPassword,
        refresh: { credentials.requestRefresh(of: $0) },
        metCluster: { clusters.ask(as: $0) },
        inheriting: inheritance.sockets,
        isPaused: true
    )
    credentials.subscribe { user, snapshot in server.publish(snapshot, for: user) }
    do {
        try inheritance.settle(with: server, logger: logger)
    } catch {
        server.stop()
        throw error
    }
    server.open()
    let patience = inheritance.taker == nil ? Duration.zero : adminPatience
    let admin: AdminListener?
    do throws(AdminFailure) {
        admin = try startAdmin(
            settings.admin, of: server, recent, logger, within: patience)
    } catch {
        guard inheritance.taker != nil else {
            server.stop()
            throw error
        }
        // There is no other process any more that could go on in its place.
        logger.error("going on without the admin listener: \(error)")
        admin = nil
    }
    defer { admin?.stop() }
    whenReady(server.addresses)

    let reload = load.map {
        Reload(
            of: settings, load: $0, environment: environment, server: server,
            credentials: credentials, clusters: clusters, logger: logger, logPolicy: logPolicy)
    }
    let notices = ServiceNotices(to: manager, summary: settings.summary, logger: logger)
    let control = try ControlLoop(
        of: server,
        patience: {
            let current = reload?.settings ?? settings
            return ControlLoop.Patience(
                drain: current.drainTimeout.wholeNanoseconds,
                handover: current.handoverDrainTimeout.wholeNanoseconds)
        },
        reload: reload, notices: notices, handoverSocket: inheritance.handoverSocket,
        logger: logger)
    var console: Console?
    if let path = settings.admin.socket {
        let actions = ConsoleActions(
            server, settings: reload?.inUse ?? SettingsInForce(settings), orders: control.orders)
        console = try Console(path: path, within: patience, actions: actions, logger: logger)
    }
    control.whenHandedOver = {
        admin?.stop()
        console?.stop()
    }
    notices.isReady()
    let ended = try control.run()
    console?.stop()
    if ended > 0 {
        logger.warning(
            "sessions were ended with replies still owed",
            metadata: [
                "sessions": "\(ended)",
                "drain_timeout": "\((reload?.settings ?? settings).drainTimeout)",
            ]
        )
    }
    clusters.stop()
    credentials.stop()
    logger.info("stopped")
    return ended
}

/// How long a process that has handed over may take to let go of the places of admin.
private let adminPatience = Duration.seconds(5)

/// The status page and its like, if they are wanted.
private func startAdmin(
    _ settings: AdminSettings, of server: Server, _ recent: RecentRecords, _ logger: Logger,
    within patience: Duration
) throws(AdminFailure) -> AdminListener? {
    guard let address = settings.address else { return nil }
    let observer = Observer(records: recent, version: ProxyCommand.version) { server.report() }
    let admin = AdminListener(address.endpoint, observer: observer, logger: logger)
    let endpoint = try admin.start(within: patience)
    let place = if case .tcp = endpoint { "http://\(endpoint)/" } else { "\(endpoint)" }
    logger.notice("status page, metrics and probes on \(place)")
    return admin
}

/// A password file of a rule's login.
private func readPassword(_ path: String) -> Result<Secret, UnreadablePassword> {
    do throws(PasswordFile.Unusable) {
        return .success(try PasswordFile.read(path).secret)
    } catch {
        return .failure(UnreadablePassword(reason: error.reason))
    }
}

extension ServerConfiguration {
    /// - Throws: `TLSContextError` when a certificate or key cannot be used.
    init(_ settings: Settings) throws {
        var limits = Limits()
        limits.connectionsPerPool = settings.connectionsPerWorker
        limits.loginTimeout = settings.loginTimeout
        limits.loginDeadline = settings.loginDeadline
        limits.upstreamWait = settings.upstreamWait
        limits.replyWindow = settings.replyWindow.bytes
        limits.replyBuffer = settings.replyBuffer.bytes
        limits.slowReaderTimeout = settings.slowReaderTimeout
        limits.maximumPinned = max(1, settings.maxPinned / settings.threads)
        self.init(
            targets: try settings.upstreams.map(UpstreamTarget.init),
            users: settings.users.map(UpstreamUser.init),
            listeners: try settings.listeners.map(Listener.init),
            threads: settings.threads,
            limits: limits,
            maximumSessions: settings.maxSessions,
            maximumSessionsBeforeLogin: settings.maxSessionsBeforeLogin
        )
        gathers = settings.gather
    }
}

extension UpstreamTarget {
    /// - Throws: `TLSContextError` when a certificate or key cannot be used.
    init(_ upstream: UpstreamSettings) throws {
        var context: TLSContext?
        var serverName = upstream.address.host
        if case .on(let tls) = upstream.tls {
            serverName = tls.serverName ?? upstream.address.host
            context = try TLSContext(
                Transport.TLSSettings(
                    caFile: tls.caFile,
                    minimumVersion: tls.minVersion == .tls12 ? .tls12 : .tls13,
                    certificateFile: tls.certificateFile,
                    keyFile: tls.keyFile
                )
            )
        }
        self.init(
            name: upstream.name,
            host: upstream.address.host,
            port: upstream.address.port,
            serverName: serverName,
            tls: context,
            connectTimeout: upstream.connectTimeout,
            keepAlive: KeepAlive(
                idleSeconds: upstream.keepaliveIdle.wholeSeconds,
                intervalSeconds: upstream.keepaliveInterval.wholeSeconds,
                probes: Int32(clamping: upstream.keepaliveCount)
            ),
            userTimeout: upstream.tcpUserTimeout,
            reconnectMinimum: upstream.reconnectMin,
            reconnectMaximum: upstream.reconnectMax,
            connectionMaximumAge: upstream.connectionMaxAge == .zero
                ? nil : upstream.connectionMaxAge
        )
    }
}

extension UpstreamUser {
    fileprivate init(_ user: UserSettings) {
        self.init(
            name: user.name, userName: user.userName, source: "\(user.credentials)",
            target: user.upstream)
        isIAM = user.credentials.isIAM
    }
}

extension Listener {
    fileprivate init(_ listener: ListenerSettings) throws {
        var options = ListenOptions()
        if case .unix = listener.address {
            options.unixMode = UInt32(listener.socketMode.bits)
            options.unixUser = try listener.socketOwner.map {
                try number(of: $0, "socket_owner", "user", Accounts.system.user)
            }
            options.unixGroup = try listener.socketGroup.map {
                try number(of: $0, "socket_group", "group", Accounts.system.group)
            }
        }
        self.init(
            endpoint: listener.endpoint,
            options: options,
            rules: listener.identities,
            acceptsAnyLogin: listener.acceptAnyLogin,
            isDedicated: listener.mode == .dedicated
        )
    }
}

extension ListenerSettings {
    /// Where it is bound.
    var endpoint: Endpoint { address.endpoint }
}

extension ListenerAddress {
    /// The same for a socket.
    var endpoint: Endpoint {
        switch self {
        case .tcp(let address, let port): .tcp(host: address, port: port)
        case .unix(let path): .unix(path: path)
        }
    }
}

/// The user or group that a listener's socket file shall belong to cannot be found.
private struct NoAccount: Error, CustomStringConvertible {
    let description: String
}

/// - Parameter name: or a number, which is itself.
private func number(
    of name: String, _ setting: String, _ kind: String, _ lookUp: (String) -> Accounts.Answer
) throws(NoAccount) -> UInt32 {
    if let number = UInt32(name) { return number }
    switch lookUp(name) {
    case .found(let number): return number
    case .unknown:
        throw NoAccount(description: "\(setting): there is no \(kind) '\(name)' on this system")
    case .failed(let reason):
        throw NoAccount(description: "\(setting): cannot look up \(kind) '\(name)': \(reason)")
    }
}

extension Settings {
    /// What is served, for the service manager's status line.
    fileprivate var summary: String {
        func count(_ number: Int, _ noun: String) -> String {
            "\(number) \(noun)\(number == 1 ? "" : "s")"
        }
        return "serving on \(count(listeners.count, "listener")),"
            + " as \(count(users.count, "user")) of \(count(upstreams.count, "upstream"))"
    }
}

extension Duration {
    /// Settings have no negative ones, and none that is longer than a week.
    fileprivate var wholeNanoseconds: UInt64 {
        UInt64(clamping: components.seconds) * 1_000_000_000
            + UInt64(clamping: components.attoseconds / 1_000_000_000)
    }

    /// At least 1, since the system takes 0 for an error.
    fileprivate var wholeSeconds: Int32 { Int32(clamping: max(1, components.seconds)) }
}
