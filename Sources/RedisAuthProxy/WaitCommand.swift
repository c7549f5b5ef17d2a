import ArgumentParser
import Configuration
import Glibc

/// `wait`: until a proxy is ready, for scripts, init containers and probes.
struct WaitCommand: ParsableCommand {
    /// Pauses between two questions: the first and the longest. They double in between.
    private static let pauses: (shortest: Int32, longest: Int32) = (20, 1_000)
    private static let longestTimeout: Duration = .seconds(7 * 86_400)

    static let configuration = CommandConfiguration(
        commandName: "wait",
        abstract: "Wait until a proxy is ready.",
        discussion: """
            Connects to a listener as any client does and sends PING, again and again, until the \
            server answers. With --config, the file's admin address is asked for /ready, which is \
            about every user; without one each listener of the file is waited for.

            Ready is also: NOPERM, when the user may not do PING; and NOAUTH, when the listener \
            wants a login, behind which wait cannot look. Not ready is any error of the proxy's own, \
            such as a refused login, a server that cannot be reached, or no identity rule for the \
            user that wait runs as.

            --live asks less: whether the proxy answers at all, with or without its server. It is \
            meant for liveness probes, since a proxy is not healed by starting it again when its \
            server is gone.

            Prints nothing, unless the time is over: then what was wanted and what was got last.

            EXAMPLES
              redis-auth-proxy wait 127.0.0.1:6379 && exec bin/worker
              redis-auth-proxy wait unix:/run/app/redis.sock --timeout 10s
              redis-auth-proxy wait --config /etc/redis-auth-proxy.yaml --timeout 1s --live

            EXIT CODES
              0   ready
              64  the command line cannot be understood
              69  not ready before the time was over
              78  the configuration cannot be used; every problem has been printed
            """)

    @Argument(
        help: ArgumentHelp(
            "Where the proxy listens, HOST:PORT or unix:PATH.", valueName: "address"))
    var addresses: [String] = []

    @Option(
        help: ArgumentHelp(
            "The proxy's configuration file, in place of addresses (also"
                + " $\(ConfigurationOptions.configurationVariable)).",
            valueName: "file"))
    var config: String?

    @Option(help: ArgumentHelp("How long to wait, up to 7d.", valueName: "duration"))
    var timeout = DurationArgument(.seconds(60))

    @Flag(help: "Until the proxy answers, with or without its server.")
    var live = false

    func validate() throws {
        guard timeout.duration > .zero, timeout.duration <= Self.longestTimeout else {
            throw ValidationError("--timeout: wanted 1ms to 7d, got \(timeout).")
        }
    }

    func run() throws {
        let probes = try probes()
        signal(SIGPIPE, SIG_IGN)
        let deadline = Deadline(after: timeout.duration)
        for probe in probes {
            if let last = wait(for: probe, until: deadline) {
                complain(
                    "wait: \(probe.address): wanted \(probe.wanted) within \(timeout), got last:"
                        + " \(last)")
                throw Exit.unavailable.code
            }
        }
    }

    /// What was got last; nil when it was what is wanted.
    private func wait(for probe: any Probe, until deadline: Deadline) -> String? {
        // An answer says more than the silence after it.
        var last: String?
        var pause = Self.pauses.shortest
        while let left = deadline.millisecondsLeft {
            switch probe.ask(until: deadline) {
            case .wanted: return nil
            case .other(let text): last = text
            case .nothing: break
            }
            poll(nil, 0, min(pause, left))
            pause = min(pause * 2, Self.pauses.longest)
        }
        return last ?? "a connection and no answer"
    }

    // MARK: Where

    private func probes() throws -> [any Probe] {
        let question = live ? ProbeQuestion.live : .ready
        guard addresses.isEmpty || config == nil else {
            throw ValidationError("--config and addresses exclude each other.")
        }
        if !addresses.isEmpty {
            return try addresses.map { text in
                let address: ListenerAddress
                do throws(Unwanted) {
                    address = try ListenerAddress(setting: text)
                } catch {
                    let advice = error.advice.map { ": \($0)" } ?? ""
                    throw ValidationError(
                        "wanted HOST:PORT or unix:PATH, got \(escaped(text))\(advice).")
                }
                return ListenerProbe(address: try known(address), question: question)
            }
        }
        guard let file = config ?? ConfigurationOptions.environmentFile else {
            throw ValidationError("Nothing to wait for: give an address, or --config FILE.")
        }
        let settings: Settings
        do throws(InvalidConfiguration) {
            settings = try Settings.load(
                file: file, environment: [], flags: [], checksFiles: false
            ).settings
        } catch {
            complain(error)
            throw Exit.configuration.code
        }
        if let admin = settings.admin.address {
            return [AdminProbe(address: try known(admin), question: question)]
        }
        return try settings.listeners.map { listener in
            ListenerProbe(address: try known(listener.address), question: question)
        }
    }

    private func known(_ address: ListenerAddress) throws -> ListenerAddress {
        if case .tcp(_, 0) = address {
            throw ValidationError(
                "\(address): which port that became is in the proxy's log: give that address.")
        }
        return address
    }
}
