import AWS
import Admin
import ArgumentParser
import Configuration
import Credentials
import Glibc
import Identity
import Logging
import Server
import Telemetry
import Transport

/// `run`: the proxy itself, until SIGTERM or SIGINT.
struct RunCommand: ParsableCommand {
    /// The smallest configuration there is.
    static let exampleFile = """
          upstreams:
            cache: { address: "cache.example:6379" }
          users:
            app: { upstream: cache, credentials: { password_file: /run/secrets/app } }
          listeners:
            - { address: "127.0.0.1:6379", identities: [{ any: true, user: app }] }
        """

    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run the proxy.",
        discussion: """
            Settings come from a file (--config), or from flags alone for listeners in front of \
            one user of one server. A flag goes over the environment, the environment over the \
            file. `redis-auth-proxy check --help` lists every key of the file.

            Runs in the foreground and logs to standard error. SIGHUP reads the configuration again \
            and goes over to it if it is valid. SIGTERM and SIGINT drain: no new \
            clients, replies that are owed are delivered for at most --drain-timeout, then exit 0.

            If the configuration has a handover_socket and a process runs, this one takes over its \
            listeners when it is ready, and that one serves its clients until they leave. Sockets that \
            a service manager passes (LISTEN_FDS) are taken by the listeners of their addresses.

            With --connection-test nothing is listened on: every user is logged in once, as the \
            proxy would, and what came of it is printed. Exits with 0 if all could be, else with 69.

            EXAMPLES
              redis-auth-proxy run --config /etc/redis-auth-proxy.yaml --connection-test
              redis-auth-proxy run --config /etc/redis-auth-proxy.yaml
              redis-auth-proxy run --listen 127.0.0.1:6379 \\
                  --listen unix:/run/app/redis.sock \\
                  --upstream rediss://cache.example:6379 \\
                  --user app --password-file /run/secrets/app

            EXIT CODES
            \(Exit.table)

            EXAMPLE OF A FILE
            \(exampleFile)
            """)

    @OptionGroup var options: ConfigurationOptions

    @Flag(help: "Log in as every user, say what came of it, and end.")
    var connectionTest = false

    func run() throws {
        try options.checkUsage()
        let loaded: LoadedSettings
        do throws(InvalidConfiguration) {
            loaded = try options.load(checksFiles: false)
        } catch {
            complain(error)
            throw Exit.configuration.code
        }
        // An interrupt must still end a test.
        try prepareProcess(blocking: connectionTest ? [] : [SIGTERM, SIGINT, SIGHUP])
        let settings = loaded.settings
        let logPolicy = LogPolicy(level: settings.log.level, format: settings.log.format)
        let recent = RecentRecords()
        let logger = Log.make("redis-auth-proxy", logPolicy, recent: recent)
        for warning in loaded.warnings {
            logger.warning("\(warning.message)", metadata: ["at": "\(warning.position)"])
        }
        // Before any thread: see PasswordEnvironment and ServiceManager.
        let manager: ServiceManager
        do throws(InheritanceError) {
            manager = try ServiceManager.take()
        } catch {
            complain(error)
            throw Exit.unavailable.code
        }
        let environment = PasswordEnvironment.take(settings.passwordVariables)
        let missing = settings.passwordVariables.filter { environment.secret(named: $0) == nil }
        for variable in missing {
            complain(
                "password_env: wanted the environment variable \(variable), got none: set it to"
                    + " the password")
        }
        guard missing.isEmpty else { throw Exit.configuration.code }
        if connectionTest { return try testConnections(settings, environment) }

        let load: () throws(InvalidConfiguration) -> LoadedSettings = {
            () throws(InvalidConfiguration) in try options.load(checksFiles: false)
        }
        try start(
            settings, load: load, environment: environment, recent: recent, logger: logger,
            logPolicy: logPolicy, manager: manager
        ) { addresses in
            for (listener, bound) in zip(settings.listeners, addresses) {
                var listener = listener
                // Port 0 became a real one.
                if case .tcp(let host, 0) = listener.address, let port = bound.first?.port {
                    listener.address = .tcp(address: host, port: port)
                }
                logger.info("listening on \(settings.summary(of: listener))")
            }
        }
    }
}

extension Settings {
    /// The environment variables that passwords are taken from.
    var passwordVariables: [String] {
        users.compactMap { user in
            if case .passwordEnvironment(let variable) = user.credentials { variable } else { nil }
        }
    }

    /// The users as the credential store wants them, in the order of their names.
    var credentialUsers: [CredentialStore.User] {
        credentialUsers(numbered: users.indices.map { UserIndex($0) })
    }

    /// - Parameter numbers: what each user is known by where its credential is used.
    func credentialUsers(numbered numbers: [UserIndex]) -> [CredentialStore.User] {
        zip(users, numbers).map { user, number in
            CredentialStore.User(
                index: number, name: user.name, userName: user.userName,
                source: user.credentials)
        }
    }
}

/// A store for these users, not started. Reads AWS's variables if somebody needs them: nobody may
/// change the environment meanwhile, as nobody does once it is known which passwords are in it.
///
/// - Throws: when AWS's shared files cannot be used.
func credentialStore(
    _ users: [CredentialStore.User], _ environment: PasswordEnvironment, logger: Logger
) throws(AWSFailure) -> CredentialStore {
    let sources = users.map(\.source)
    let aws = sources.contains(where: \.needsAWS) ? try AWSCredentials(for: sources) : nil
    return CredentialStore(users: users, environment: environment, aws: aws, logger: logger)
}

/// What every process that holds credentials does first, before any thread exists: no core files, no
/// death by a closed pipe, and `signals` left for whoever reads them.
func prepareProcess(blocking signals: [Int32] = [SIGTERM, SIGINT]) throws {
    signal(SIGPIPE, SIG_IGN)
    // Swift's own crash handler writes registers, and the memory that they point to, to the log.
    for crash in [SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGABRT, SIGQUIT] {
        signal(crash, SIG_DFL)
    }
    SignalWatcher.block(signals)
    do throws(SystemError) {
        try ProcessLimits.disableCoreDumps()
    } catch {
        complain("cannot switch core dumps off, which could contain passwords: \(error)")
        throw Exit.system.code
    }
}

/// Reads the credentials and serves until SIGTERM or SIGINT; says why if it cannot.
///
/// - Parameters:
///   - load: reads the settings again, for SIGHUP; nil leaves that signal alone.
///   - environment: the passwords of users with password_env.
///   - recent: what the logger keeps of its warnings and errors.
///   - logPolicy: that of `logger`, for SIGHUP.
///   - manager: what the service manager said.
///   - whenReady: called once all listeners are bound, with what each is bound to.
func start(
    _ settings: Settings,
    load: (() throws(InvalidConfiguration) -> LoadedSettings)? = nil,
    environment: PasswordEnvironment = PasswordEnvironment(),
    recent: RecentRecords, logger: Logger,
    logPolicy: LogPolicy = LogPolicy(level: .info, format: .text),
    manager: ServiceManager = ServiceManager(), whenReady: ([[SocketAddress]]) -> Void
) throws {
    let credentials = LiveCredentials { users throws(AWSFailure) in
        try credentialStore(users, environment, logger: logger)
    }
    let clusters = ClusterCheck(credentials: credentials, logger: logger)
    defer {
        clusters.stop()
        credentials.stop()
    }
    do {
        let users = settings.credentialUsers
        credentials.follow(try credentials.prepare(users), users)
        clusters.follow(settings, numbered: users.map(\.index))
        _ = try serve(
            settings, load: load, environment: environment, credentials: credentials,
            clusters: clusters, recent: recent, logger: logger, logPolicy: logPolicy,
            manager: manager, whenReady: whenReady)
    } catch let error as AWSFailure {
        logger.critical("\(error.reason)")
        throw Exit.configuration.code
    } catch let error as CredentialStore.StartFailure {
        logger.critical("\(error.reason)")
        throw Exit.system.code
    } catch let error as SystemError {
        logger.critical("\(error)")
        throw Exit.system.code
    } catch let error as InheritanceError {
        logger.critical("\(error)")
        throw Exit.unavailable.code
    } catch let error as HandoverError {
        logger.critical("\(error)")
        throw Exit.unavailable.code
    } catch let error as ListenError {
        logger.critical("\(error)")
        throw Exit.unavailable.code
    } catch let error as ServerError {
        logger.critical("\(error)")
        switch error {
        case .listen: throw Exit.unavailable.code
        case .system: throw Exit.system.code
        }
    } catch let error as AdminFailure {
        logger.critical("\(error)")
        throw Exit.unavailable.code
    } catch {
        // What is left is what the settings named and the system does not have: a certificate that
        // cannot be used, a socket owner that does not exist.
        logger.critical("\(error)")
        throw Exit.configuration.code
    }
}
