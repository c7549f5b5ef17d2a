import AWS
import ArgumentParser
import Configuration
import Credentials
import Glibc
import Identity
import Logging
import Telemetry
import Transport

/// `doctor`: whether each user can be logged in, step by step.
struct DoctorCommand: ParsableCommand {
    enum Format: String, ExpressibleByArgument, CaseIterable {
        case text
        case json
    }

    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Try out every step between a listener and a server, and say what is wrong.",
        discussion: """
            Reads the configuration as run would, and then, for each of its users, does what the \
            proxy does: reads the credential, resolves the name, connects to every address, sets up \
            TLS and logs in. Then it asks the server who it takes us for, what it is, and whether \
            the user may do what access_string says. A user needs no permission for any of that; \
            what may not be asked is said to be unknown, and each refused question leaves a line \
            in the server's ACL LOG.

            Each step is ok, a warning (it works, think about it), failed (with what to do) or \
            unknown. No secret is printed. Credentials that a service keeps are fetched from it.

            EXIT CODES
              0   nothing failed; there may be warnings
              64  the command line cannot be understood
              69  a step failed
              71  the operating system refused something
              78  the configuration cannot be used; every problem has been printed

            EXAMPLES
              redis-auth-proxy doctor --config /etc/redis-auth-proxy.yaml
              redis-auth-proxy doctor --config /etc/redis-auth-proxy.yaml --format json
            """)

    @OptionGroup var options: ConfigurationOptions

    @Option(help: ArgumentHelp("text: lines for people. json: one object.", valueName: "format"))
    var format = Format.text

    func run() throws {
        try options.checkUsage()
        var report = DoctorReport()
        let loaded: LoadedSettings
        do throws(InvalidConfiguration) {
            loaded = try options.load(checksFiles: false)
        } catch {
            complain(error)
            if format == .json {
                report.sections = [Self.section(of: error.diagnostics)]
                write(report.json)
            }
            throw Exit.configuration.code
        }
        // An interrupt must still end it.
        try prepareProcess(blocking: [])
        let settings = loaded.settings
        // What the store has to say is said here, in the steps.
        let logger = Log.make("doctor", level: .critical, format: settings.log.format)
        let environment = PasswordEnvironment.take(settings.passwordVariables)
        let store = try startedStore(settings, environment, logger: logger)
        defer { store.stop() }

        report.sections = [Self.section(of: loaded.warnings)]
        if format == .text {
            say("configuration")
            for step in report.sections[0].steps { say(DoctorReport.lines(step)) }
        }
        var heading = ""
        let doctor = Doctor(settings: settings, credentials: store) { section, step in
            guard format == .text else { return }
            if DoctorReport.heading(section) != heading {
                heading = DoctorReport.heading(section)
                say(heading)
            }
            say(DoctorReport.lines(step))
        }
        report.sections += doctor.run()
        switch format {
        case .text: say(report.summary)
        case .json: write(report.json)
        }
        if report.count(.failed) > 0 { throw Exit.unavailable.code }
    }

    private func write(_ json: String) {
        // `say` ends the line itself.
        say(String(json.dropLast()))
    }

    private static func section(of diagnostics: [Diagnostic]) -> DoctorSection {
        var section = DoctorSection(kind: "configuration", name: nil)
        section.steps = diagnostics.map { diagnostic in
            DoctorStep(
                name: "settings",
                outcome: diagnostic.severity == .error ? .failed : .warning,
                message: "\(diagnostic.position): \(diagnostic.message)")
        }
        if section.steps.isEmpty {
            section.steps = [DoctorStep(name: "settings", outcome: .ok, message: "valid")]
        }
        return section
    }
}

/// A store whose credentials have been read. AWS may take 20 seconds to answer for every user that
/// needs it; who has no credential then has a failure that says so.
///
/// - Throws: the exit code, once why has been said.
func startedStore(
    _ settings: Settings, _ environment: PasswordEnvironment, logger: Logger
) throws -> CredentialStore {
    let store: CredentialStore
    do throws(AWSFailure) {
        store = try credentialStore(settings.credentialUsers, environment, logger: logger)
    } catch {
        complain(error.reason)
        throw Exit.configuration.code
    }
    do {
        try store.start()
        store.waitForAWS(atMost: .seconds(20))
    } catch {
        complain("\(error.reason)")
        throw Exit.system.code
    }
    return store
}
