import ArgumentParser
import Configuration
import Glibc
import Identity
import Telemetry
import Transport

/// `demo`: a Redis server with TLS and ACL users, and the proxy in front of it.
struct DemoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Try it: a local TLS Redis with ACL users, and the proxy in front.",
        discussion: """
            Starts a redis-server on a free port, TLS only, with a throwaway CA, the user default \
            switched off and three users: app (everything), producer (only SET) and consumer \
            (only GET). Runs the proxy with one loopback port for each of them and a status page \
            for the browser, prints commands to paste into another terminal, and changes all passwords while you use them.

            Everything lives in a directory of its own and is removed at the end (Ctrl-C). Should \
            the demo be killed with SIGKILL, the kernel ends the server, and the directory \
            (redis-auth-proxy-demo-… in $TMPDIR or /tmp) stays.

            Needs the programs redis-server, redis-cli and openssl.

            EXIT CODES
            \(Exit.table)
            """)

    /// How far the status page's port is from the first.
    private static let adminOffset: UInt16 = 79

    @Option(
        help: ArgumentHelp(
            "The port for app; producer and consumer get the next two, and the status page the"
                + " one 79 higher. A free port is taken in"
                + " place of one that is in use.", valueName: "port"))
    var port: UInt16 = 7001

    @Option(
        help: ArgumentHelp(
            "How often the passwords change, at least 200ms.", valueName: "duration"))
    var rotateEvery = DurationArgument(.seconds(20))

    @Option(help: ArgumentHelp("End by itself after this time.", valueName: "duration"))
    var runFor: DurationArgument?

    func validate() throws {
        guard port > 0, port <= .max - Self.adminOffset else {
            throw ValidationError(
                "--port: wanted 1 to \(UInt16.max - Self.adminOffset), got \(port).")
        }
        guard rotateEvery.duration >= .milliseconds(200) else {
            throw ValidationError("--rotate-every: wanted at least 200ms, got \(rotateEvery).")
        }
    }

    func run() throws {
        try prepareProcess()
        do {
            try demonstrate()
        } catch is DemoServer.Interrupted {
            say("interrupted: everything is removed")
        } catch let failure as ProgramFailure {
            complain(failure)
            throw (failure.isMissing ? Exit.unavailable : Exit.system).code
        }
    }

    private func demonstrate() throws {
        let server = try DemoServer()
        defer { server.remove() }
        say("Starting a Redis server with TLS and three ACL users in \(server.directory) …")
        try server.start(isInterrupted: isInterrupted)

        let rotation = DemoRotation(every: rotateEvery.duration, runFor: runFor?.duration)
        defer { rotation.stop() }
        let recent = RecentRecords()
        let logger = Log.make("redis-auth-proxy", level: .notice, format: .text, recent: recent)
        var failure: (any Error)?
        try start(settings(for: server), recent: recent, logger: logger) { addresses in
            explain(server, ports: addresses.map { $0.first?.port ?? 0 })
            do { try rotation.start(server) } catch { failure = error }
        }
        if let failure { throw failure }
        say("Stopped. The server and its directory are removed.")
    }

    /// Whether Ctrl-C or SIGTERM waits to be read: both are blocked until the proxy runs.
    private func isInterrupted() -> Bool {
        SignalWatcher.isPending(SIGINT) || SignalWatcher.isPending(SIGTERM)
    }

    private func settings(for server: DemoServer) -> Settings {
        var settings = Settings()
        var upstream = UpstreamSettings()
        upstream.name = "demo"
        upstream.address = HostAndPort(host: "localhost", port: server.port)
        var tls = UpstreamTLSSettings()
        tls.caFile = server.caFile
        upstream.tls = .on(tls)
        settings.upstreams = [upstream]
        for (position, demoUser) in DemoServer.users.enumerated() {
            var user = UserSettings()
            user.name = demoUser.name
            user.userName = demoUser.name
            user.credentials = .passwordFile(path: server.passwordFile(of: demoUser.name))
            settings.users.append(user)

            var listener = ListenerSettings()
            let wanted = port + UInt16(position)
            listener.address = .tcp(
                address: "127.0.0.1", port: bindableLoopbackPort(wanted) ?? 0)
            var rule = IdentityRule()
            rule.user = UserIndex(position)
            listener.identities = [rule]
            settings.listeners.append(listener)
        }
        settings.admin.address = .tcp(
            address: "127.0.0.1", port: bindableLoopbackPort(port + Self.adminOffset) ?? 0)
        return settings
    }

    private func explain(_ server: DemoServer, ports: [UInt16]) {
        func row(_ columns: String..., comment: String) -> String {
            let command = columns.joined(separator: " ")
            return "  " + command
                + String(repeating: " ", count: max(1, 58 - command.count)) + "# " + comment
        }
        var lines = [
            "", "One plain port for each user. No password, no TLS on this side:", "",
        ]
        for (user, port) in zip(DemoServer.users, ports) {
            let name = user.name + String(repeating: " ", count: max(0, 10 - user.name.count))
            lines.append("  127.0.0.1:\(port)  \(name)\(user.accessString)")
        }
        let moved = zip(ports, 0...).filter { $0 != port + UInt16($1) }
        if !moved.isEmpty {
            lines.append("  (free ports, because \(port) to \(port + 2) are in use)")
        }
        if ports.count == 3 {
            let (app, producer, consumer) = (ports[0], ports[1], ports[2])
            lines += [
                "", "Paste into another terminal:", "",
                row("redis-cli -p \(producer) SET greeting hello", comment: "OK"),
                row("redis-cli -p \(consumer) GET greeting", comment: "\"hello\""),
                row(
                    "redis-cli -p \(producer) GET greeting",
                    comment: "refused: NOPERM, producer may only SET"),
                row(
                    "redis-cli -p \(consumer) SET greeting bye",
                    comment: "refused: NOPERM, consumer may only GET"),
                row("redis-cli -p \(app) ACL WHOAMI", comment: "\"app\""),
                row(
                    "redis-cli -p \(server.port) --tls --cacert \(server.caFile) PING",
                    comment: "refused: NOAUTH, without the proxy"),
                row(
                    "redis-benchmark -p \(app) -t set,get -n 100000 -q", comment: "while it rotates"
                ),
            ]
        }
        lines += [
            "",
            "All passwords change every \(rotateEvery) while you work. Ctrl-C ends the demo and removes"
                + " everything.", "",
        ]
        say(lines.joined(separator: "\n"))
    }
}

/// A duration on the command line, written as in a file.
struct DurationArgument: ExpressibleByArgument, CustomStringConvertible {
    let duration: Duration

    init(_ duration: Duration) {
        self.duration = duration
    }

    init?(argument: String) {
        guard let duration = try? Duration(setting: argument) else { return nil }
        self.duration = duration
    }

    var description: String { duration.settingText }

    var defaultValueDescription: String { description }
}
