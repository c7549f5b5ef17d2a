import Identity
import Logging
import Proxy
import Server
import Transport

/// One server with two users, of whom `reports` has a listener with logins as well.
func configuration() -> ServerConfiguration {
    var any = IdentityRule()
    any.user = UserIndex(0)
    let listeners = [
        Listener(
            endpoint: .tcp(host: "127.0.0.1", port: 0), options: ListenOptions(), rules: [any],
            isDedicated: false)
    ]
    return ServerConfiguration(
        targets: [
            UpstreamTarget(
                name: "nowhere", host: "127.0.0.1", port: 1, serverName: "localhost", tls: nil,
                connectTimeout: .seconds(1),
                keepAlive: KeepAlive(idleSeconds: 30, intervalSeconds: 10, probes: 3),
                userTimeout: .seconds(30), reconnectMinimum: .milliseconds(50),
                reconnectMaximum: .seconds(2))
        ],
        users: [UpstreamUser(name: "app", userName: "app", source: "a \"test\"", target: 0)],
        listeners: listeners,
        threads: 2,
        limits: Limits(),
        maximumSessions: 10
    )
}

/// A running server whose one upstream refuses connections.
func startServer() throws(ServerError) -> Server {
    try Server(
        configuration(),
        credentials: [
            CredentialSnapshot(
                version: 1, credential: Credential(userName: "app", secret: Secret("pw".utf8)),
                failure: nil)
        ],
        logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
        readPassword: { _ in .failure(UnreadablePassword(reason: "a test")) },
        refresh: { _ in }
    )
}

/// What `Server.report` says of a server that has just started, to be changed by a test.
func report() throws -> ServerReport {
    let server = try startServer()
    var report: ServerReport
    // The first attempt to log in is made without a client.
    repeat {
        report = server.report(patience: .seconds(10))
    } while report.workers.contains { $0.tally.byUser[0].outcome == nil }
    server.stop()
    return report
}
