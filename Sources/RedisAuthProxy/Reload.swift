// SIGHUP: the configuration is read again, and what is in use goes over to it.
//
//     read and check ──► passwords ──► certificates ──► bind new listeners ──► read credentials
//          │                 │              │                  │                     │
//          └─────────────────┴──────── anything wrong: ────────┴─────────────────────┘
//                              every problem in the log, nothing changed
//                                                                                    │ all is well
//                                              server.follow ◄── credentials.follow ◄┘
//
// Everything that can fail comes first. What cannot change while the process runs is named in a warning
// and keeps its value.

import AWS
import Configuration
import Credentials
import Glibc
import Identity
import Logging
import Server
import Telemetry
import Transport

/// Reloads on behalf of a running proxy. Used on the main thread.
final class Reload {
    private let load: () throws(InvalidConfiguration) -> LoadedSettings
    private let environment: PasswordEnvironment
    private let server: Server
    private let credentials: LiveCredentials
    private let clusters: ClusterCheck
    private let logger: Logger
    private let logPolicy: LogPolicy
    /// Those in use.
    private(set) var settings: Settings {
        didSet { inUse.set(settings) }
    }
    /// The same, for other threads.
    let inUse: SettingsInForce
    /// Of the reload that is under way.
    private var problems: [String] = []
    private var warnings: [String] = []

    /// - Parameters:
    ///   - settings: those in use.
    ///   - load: reads them again, from where they came.
    init(
        of settings: Settings, load: @escaping () throws(InvalidConfiguration) -> LoadedSettings,
        environment: PasswordEnvironment, server: Server, credentials: LiveCredentials,
        clusters: ClusterCheck, logger: Logger, logPolicy: LogPolicy
    ) {
        self.settings = settings
        inUse = SettingsInForce(settings)
        self.load = load
        self.environment = environment
        self.server = server
        self.credentials = credentials
        self.clusters = clusters
        self.logger = logger
        self.logPolicy = logPolicy
    }

    /// What became of a reload, for whoever asked for it; the log has the same.
    enum Outcome: Sendable, Equatable {
        /// The new configuration is in use; what was warned of, in whole sentences.
        case reloaded(warnings: [String])
        /// Nothing has changed; the last problem says in general what was wrong.
        case refused(problems: [String])
    }

    /// Reads the configuration again and goes over to it, or says why not.
    ///
    /// - Parameter reason: who or what asks for it, for the log.
    @discardableResult
    func run(because reason: String = "SIGHUP") -> Outcome {
        problems = []
        warnings = []
        logger.info("\(reason): reading the configuration again")
        let loaded: LoadedSettings
        do throws(InvalidConfiguration) {
            loaded = try load()
        } catch {
            for problem in error.diagnostics { report(problem) }
            return refuse("the configuration is not valid")
        }
        for warning in loaded.warnings { report(warning) }
        let next = loaded.settings.keepingFixed(of: settings)
        let missing = next.passwordVariables.filter { environment.secret(named: $0) == nil }
        for variable in missing {
            let problem = """
                password_env: wanted a variable that was set when the process started, got \
                \(variable), which was not: use password_file, or start the proxy again
                """
            logger.error("\(problem)")
            problems.append(problem)
        }
        guard missing.isEmpty else { return refuse("a password is missing") }
        do {
            let succession = try server.prepare(try ServerConfiguration(next))
            let users = next.credentialUsers(numbered: succession.users)
            do {
                let store = try credentials.prepare(users)
                // Before the first login by the new numbers.
                clusters.follow(next, numbered: succession.users)
                server.follow(succession)
                credentials.follow(store, users)
            } catch {
                server.abandon(succession)
                throw error
            }
            tell(loaded.settings, succession)
            logPolicy.format = next.log.format
            logPolicy.level = min(settings.log.level, next.log.level)
            logger.info("reloaded", metadata: ["sessions": "\(server.sessionCount)"])
            logPolicy.level = next.log.level
            settings = next
            return .reloaded(warnings: warnings)
        } catch let error as AWSFailure {
            return refuse(error.reason)
        } catch let error as CredentialStore.StartFailure {
            return refuse(error.reason)
        } catch {
            return refuse("\(error)")
        }
    }

    private func refuse(_ reason: String) -> Outcome {
        logger.error("reload refused, nothing has changed: \(reason)")
        problems.append(reason)
        return .refused(problems: problems)
    }

    private func report(_ diagnostic: Diagnostic) {
        let isError = diagnostic.severity == .error
        logger.log(
            level: isError ? .error : .warning, "\(diagnostic.message)",
            metadata: ["at": "\(diagnostic.position)"])
        if isError {
            problems.append("\(diagnostic)")
        } else {
            warnings.append("\(diagnostic)")
        }
    }

    private func tell(_ next: Settings, _ succession: Succession) {
        for name in settings.fixed(against: next) {
            let warning = "\(name) has changed, and stays as it is until the proxy is started again"
            logger.warning("\(warning)")
            warnings.append(warning)
        }
        for endpoint in succession.closed { logger.info("no longer listening on \(endpoint)") }
        var opened = succession.opened
        for var listener in next.listeners {
            let isNew = !settings.listeners.contains { $0.address == listener.address }
            if isNew, let place = opened.firstIndex(where: { $0.endpoint == listener.endpoint }) {
                let addresses = opened.remove(at: place).addresses
                // Port 0 became a real one.
                if case .tcp(let host, 0) = listener.address, let port = addresses.first?.port {
                    listener.address = .tcp(address: host, port: port)
                }
                logger.info("listening on \(next.summary(of: listener))")
            } else if !settings.listeners.contains(where: {
                settings.summary(of: $0) == next.summary(of: listener)
            }) {
                logger.info("changed: \(next.summary(of: listener))")
            }
        }
    }
}

extension Settings {
    /// These settings with the values of `old` where they cannot change while the process runs.
    fileprivate func keepingFixed(of old: Settings) -> Settings {
        var result = self
        result.threads = old.threads
        result.connectionsPerWorker = old.connectionsPerWorker
        result.handoverSocket = old.handoverSocket
        result.admin.socket = old.admin.socket
        return result
    }

    /// Names of the settings that differ in `other` and cannot change while the process runs.
    fileprivate func fixed(against other: Settings) -> [String] {
        var names: [String] = []
        func compare(_ name: String, _ isSame: Bool) {
            if !isSame { names.append(name) }
        }
        compare("threads", threads == other.threads)
        compare("connections_per_worker", connectionsPerWorker == other.connectionsPerWorker)
        compare("handover_socket", handoverSocket == other.handoverSocket)
        compare("admin", admin == other.admin)
        return names
    }
}
