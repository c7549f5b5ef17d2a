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
import Transport

/// Reloads on behalf of a running proxy. Used on the main thread.
final class Reload {
    private let load: () throws(InvalidConfiguration) -> LoadedSettings
    private let environment: PasswordEnvironment
    private let server: Server
    private let credentials: LiveCredentials
    private let clusters: ClusterCheck
    private let logger: Logger
    private var settings: Settings

    /// - Parameters:
    ///   - settings: those in use.
    ///   - load: reads them again, from where they came.
    init(
        of settings: Settings, load: @escaping () throws(InvalidConfiguration) -> LoadedSettings,
        environment: PasswordEnvironment, server: Server, credentials: LiveCredentials,
        clusters: ClusterCheck, logger: Logger
    ) {
        self.settings = settings
        self.load = load
        self.environment = environment
        self.server = server
        self.credentials = credentials
        self.clusters = clusters
        self.logger = logger
    }

    /// Reads the configuration again and goes over to it, or says why not.
    func run() {
        logger.info("SIGHUP: reading the configuration again")
        let loaded: LoadedSettings
        do throws(InvalidConfiguration) {
            loaded = try load()
        } catch {
            for problem in error.diagnostics {
                let level: Logger.Level = problem.severity == .error ? .error : .warning
                logger.log(
                    level: level, "\(problem.message)", metadata: ["at": "\(problem.position)"])
            }
            refuse("the configuration is not valid")
            return
        }
        for warning in loaded.warnings {
            logger.warning("\(warning.message)", metadata: ["at": "\(warning.position)"])
        }
        let next = loaded.settings
        let missing = next.passwordVariables.filter { environment.secret(named: $0) == nil }
        for variable in missing {
            logger.error(
                """
                password_env: wanted a variable that was set when the process started, got \
                \(variable), which was not: use password_file, or start the proxy again
                """)
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
            tell(next, succession)
            settings = next
        } catch let error as AWSFailure {
            refuse(error.reason)
        } catch let error as CredentialStore.StartFailure {
            refuse(error.reason)
        } catch {
            refuse("\(error)")
        }
    }

    private func refuse(_ reason: String) {
        logger.error("reload refused, nothing has changed: \(reason)")
    }

    private func tell(_ next: Settings, _ succession: Succession) {
        for name in settings.fixed(against: next) {
            logger.warning(
                "\(name) has changed, and stays as it is until the proxy is started again")
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
        logger.info("reloaded", metadata: ["sessions": "\(server.sessionCount)"])
    }
}

extension Settings {
    /// Names of the settings that differ in `other` and cannot change while the process runs.
    fileprivate func fixed(against other: Settings) -> [String] {
        var names: [String] = []
        func compare(_ name: String, _ isSame: Bool) {
            if !isSame { names.append(name) }
        }
        compare("threads", threads == other.threads)
        compare("connections_per_worker", connectionsPerWorker == other.connectionsPerWorker)
        compare("gather", gather == other.gather)
        compare("max_pinned", maxPinned == other.maxPinned)
        compare("login_deadline", loginDeadline == other.loginDeadline)
        compare("login_timeout", loginTimeout == other.loginTimeout)
        compare("upstream_wait", upstreamWait == other.upstreamWait)
        compare("drain_timeout", drainTimeout == other.drainTimeout)
        compare("reply_window", replyWindow == other.replyWindow)
        compare("reply_buffer", replyBuffer == other.replyBuffer)
        compare("slow_reader_timeout", slowReaderTimeout == other.slowReaderTimeout)
        compare("log", log == other.log)
        compare("admin", admin == other.admin)
        for listener in other.listeners {
            guard let old = listeners.first(where: { $0.address == listener.address }) else {
                continue
            }
            let isSame =
                (old.socketMode, old.socketOwner, old.socketGroup)
                == (listener.socketMode, listener.socketOwner, listener.socketGroup)
            compare("socket_mode, socket_owner or socket_group of \(listener.address)", isSame)
        }
        return names
    }
}
