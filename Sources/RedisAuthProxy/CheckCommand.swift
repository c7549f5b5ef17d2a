import ArgumentParser
import Configuration

/// `check`: everything that is wrong with a configuration, and what it would do.
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract: "Print every problem of a configuration, or what it maps to.",
        discussion: """
            Reads the configuration as run would, and also looks whether the files that it names \
            can be read here and its variables are set. Nothing is connected to.

            Every problem is printed to standard error as FILE:LINE:COLUMN: error: what was \
            wanted, what was got, what to do. Exits with 78 if there is an error, with 0 if there \
            are none or only warnings.

            KEYS OF THE FILE
            Durations are written 500ms, 5s, 2m, 8h or 1d; sizes 512B, 64KiB, 1MiB or 2GiB.

            \(Settings.documentationText)

            EXAMPLE
            \(RunCommand.exampleFile)
            """)

    @OptionGroup var options: ConfigurationOptions

    func run() throws {
        try options.checkUsage()
        let loaded: LoadedSettings
        do throws(InvalidConfiguration) {
            loaded = try options.load(checksFiles: true)
        } catch {
            complain(error)
            let errors = error.diagnostics.count { $0.severity == .error }
            complain("\(errors) error\(errors == 1 ? "" : "s"): configuration is not valid")
            throw Exit.configuration.code
        }
        for warning in loaded.warnings { complain(warning) }
        say("configuration is valid")
        for listener in loaded.settings.listeners {
            say("  " + loaded.settings.summary(of: listener))
        }
    }
}

extension Settings {
    /// What becomes of a listener's clients, in a line:
    /// `127.0.0.1:6379 (multiplexed): any client → app @ cache (cache.example:6379, TLS 1.2+)`.
    func summary(of listener: ListenerSettings) -> String {
        let rules = listener.identities.map { rule in
            let who = rule.principal == "any" ? "any client" : rule.principal
            let upstream = upstream(of: rule.user)
            return "\(who) → \(user(rule.user).userName) @ \(upstream.name)"
                + " (\(upstream.address), \(upstream.protectionText))"
        }
        return "\(listener.address) (\(listener.mode.rawValue)): "
            + rules.joined(separator: "; ")
    }
}

extension UpstreamSettings {
    /// Such as `TLS 1.2+, verified`.
    var protectionText: String {
        switch tls {
        case .off: "no TLS"
        case .on(let tls): "TLS \(tls.minVersion.rawValue)+, verified"
        }
    }
}
