// Every step between a client and a server, one after the other, each with what was found.
//
//   listener   can it be bound
//   user       configuration ► credential ► dns ► tcp ► tls ► login ► identity ► server ► access
//                                             │ what fails ends the list; a credential that cannot
//                                             └ be read ends it before the login
//
// It must work for a user that may do nothing but GET: the login's own answer tells the server's
// version, role and mode to everybody, and what more is asked may be refused, which is no failure. A
// refused question leaves a line in the server's ACL LOG.

import Configuration
import Credentials
import Glibc
import Identity
import Server
import Transport

/// Looks at a configuration's listeners and users.
struct Doctor {
    /// A certificate that ends sooner draws a warning.
    private static let certificateDays = 14

    let settings: Settings
    let credentials: CredentialStore
    /// Called with each step as soon as it is done.
    let didStep: (DoctorSection, DoctorStep) -> Void

    /// Looks at everything.
    func run() -> [DoctorSection] {
        var sections: [DoctorSection] = []
        for listener in settings.listeners {
            sections.append(
                section("listener", "\(listener.address)") { say in
                    say(check(listener.address))
                })
        }
        for index in settings.users.indices {
            sections.append(
                section("user", settings.users[index].name) { say in
                    check(UserIndex(index), say)
                })
        }
        return sections
    }

    /// Looks at nothing but the way to a login, for every user.
    func runLogins() -> [DoctorSection] {
        settings.users.indices.map { index in
            section("user", settings.users[index].name) { say in
                _ = logIn(UserIndex(index), say)
            }
        }
    }

    private func section(
        _ kind: String, _ name: String, _ body: ((DoctorStep) -> Void) -> Void
    ) -> DoctorSection {
        var section = DoctorSection(kind: kind, name: name)
        body { step in
            section.steps.append(step)
            didStep(section, step)
        }
        return section
    }

    // MARK: Listeners

    private func check(_ address: ListenerAddress) -> DoctorStep {
        let inUse = DoctorStep(
            name: "address", outcome: .warning,
            message: "something listens there already, so that no proxy can be started on it",
            advice: "fine if it is the proxy itself that runs; otherwise stop it, or choose another"
                + " address (`ss -ltnpx` shows whose it is)")
        let canBeBound = DoctorStep(name: "address", outcome: .ok, message: "can be listened on")
        switch address {
        case .tcp(let host, let port):
            if let target = SocketAddress(literal: host, port: port), port != 0, listens(target) {
                return inUse
            }
            do throws(ListenError) {
                for socket in try ListeningSocket.bind(to: .tcp(host: host, port: port)) {
                    socket.close()
                }
                return canBeBound
            } catch {
                return DoctorStep(name: "address", outcome: .failed, message: error.reason)
            }
        case .unix(let path):
            // Not bound to try it: that would take away a file that may be wanted.
            if let target = SocketAddress(unixPath: path), listens(target) { return inUse }
            let directory = path.directory
            guard Glibc.access(directory, W_OK | X_OK) == 0 else {
                let reason = String(cString: strerror(errno))
                return DoctorStep(
                    name: "address", outcome: .failed,
                    message: "no socket can be made in \(escaped(directory)): \(reason)",
                    advice: "make the directory, writable for the user that the proxy runs as")
            }
            var status = stat()
            if lstat(path, &status) == 0, status.st_mode & S_IFMT != S_IFSOCK {
                return DoctorStep(
                    name: "address", outcome: .failed,
                    message: "a file that is not a socket is there",
                    advice: "remove it, or choose another path")
            }
            return canBeBound
        }
    }

    /// Whether somebody accepts connections there; the one made is closed at once.
    private func listens(_ address: SocketAddress) -> Bool {
        guard
            let descriptor = try? ServerConnection.connect(
                to: address, until: Deadline(after: .seconds(1)))
        else { return false }
        Socket.close(descriptor)
        return true
    }

    // MARK: Users

    private func check(_ index: UserIndex, _ say: (DoctorStep) -> Void) {
        guard let session = logIn(index, say) else { return }
        let user = settings.user(index)
        say(identity(user, session))
        say(server(session))
        say(access(user, settings.upstream(of: index), session))
    }

    /// nil: what came to an end has been said.
    private func logIn(_ index: UserIndex, _ say: (DoctorStep) -> Void) -> Session? {
        let user = settings.user(index)
        let upstream = settings.upstream(of: index)
        say(configuration(of: index))
        let (credential, credentialStep) = credential(of: index)
        say(credentialStep)
        do throws(Stop) {
            let addresses = try dns(upstream, say)
            let descriptor = try tcp(upstream, addresses, say)
            let connection = try tls(upstream, descriptor, say)
            guard let credential else { return nil }
            let hello = try login(user, upstream, credential, connection, say)
            return Session(
                connection: connection, hello: hello, timeout: settings.loginTimeout)
        } catch {
            return nil
        }
    }

    /// A step failed, and was said, so that there is nothing left to look at.
    private struct Stop: Error {}

    /// A connection that is logged in, and what the server said then.
    private struct Session {
        let connection: ServerConnection
        let hello: ServerReply
        let timeout: Duration

        var version: String { hello.value("version")?.string ?? "" }

        func ask(_ command: String, _ argument: String, _ more: String = "") -> ServerReply {
            let deadline = Deadline(after: timeout)
            do throws(ConnectionFailure) {
                if more.isEmpty {
                    return try connection.ask(command, argument, until: deadline)
                }
                return try connection.ask(command, argument, more, until: deadline)
            } catch {
                return .error(error.reason)
            }
        }
    }

    private func configuration(of index: UserIndex) -> DoctorStep {
        let user = settings.user(index)
        let upstream = settings.upstream(of: index)
        var step = DoctorStep(
            name: "configuration", outcome: .ok,
            message: "\(user.userName) @ \(upstream.name) (\(upstream.address),"
                + " \(upstream.protectionText))")
        step.facts = [
            ("user_name", .text(user.userName)), ("upstream", .text(upstream.name)),
            ("address", .text("\(upstream.address)")),
        ]
        return step
    }

    // MARK: Credential

    private func credential(of index: UserIndex) -> (Credential?, DoctorStep) {
        let source = settings.user(index).credentials
        let snapshot = credentials.snapshot(of: index)
        var step = DoctorStep(
            name: "credential", outcome: .ok, message: "read from \(escaped("\(source)"))")
        step.facts = [("source", .text("\(source)"))]
        guard let credential = snapshot.credential else {
            step.outcome = .failed
            step.message = "\(escaped("\(source)")): \(snapshot.failure ?? "there is none")"
            return (nil, step)
        }
        if let origin = credential.origin {
            step.message += ", \(origin)"
            step.facts.append(("origin", .text(origin)))
        }
        if case .passwordFile(let path) = source {
            var status = stat()
            if stat(path, &status) == 0, status.st_mode & 0o004 != 0 {
                step.outcome = .warning
                step.message += ", which every user of this machine can read"
                step.advice = "chmod o-r, and change the password if others log in here"
            }
        }
        return (credential, step)
    }

    // MARK: The way there

    private func dns(
        _ upstream: UpstreamSettings, _ say: (DoctorStep) -> Void
    ) throws(Stop) -> [SocketAddress] {
        let (host, port) = (upstream.address.host, upstream.address.port)
        switch Resolver.lookUp(host: host, port: port) {
        case .success(let addresses):
            let texts = addresses.map { $0.numericHost ?? "\($0)" }
            let isLiteral = SocketAddress(literal: host, port: port) != nil
            var step = DoctorStep(
                name: "dns", outcome: .ok,
                message: isLiteral
                    ? "\(host) is an address" : "\(host) is \(texts.joined(separator: ", "))")
            step.facts = [("addresses", .texts(texts))]
            say(step)
            return addresses
        case .failure(let error):
            say(
                DoctorStep(
                    name: "dns", outcome: .failed, message: "\(error)",
                    advice: "check the name in \(upstream.name)'s address, and that this machine"
                        + " asks a name server that knows it"))
            throw Stop()
        }
    }

    /// Connects to all addresses, since the proxy may come to use each, and keeps the first.
    private func tcp(
        _ upstream: UpstreamSettings, _ addresses: [SocketAddress], _ say: (DoctorStep) -> Void
    ) throws(Stop) -> Int32 {
        var connected: Int32?
        var reached: [String] = []
        var problems: [String] = []
        var advice: String?
        for address in addresses {
            do throws(ConnectionFailure) {
                let descriptor = try ServerConnection.connect(
                    to: address, until: Deadline(after: upstream.connectTimeout))
                reached.append("\(address)")
                if connected == nil { connected = descriptor } else { Socket.close(descriptor) }
            } catch {
                problems.append("\(address): \(error.reason)")
                advice = advice ?? error.advice
            }
        }
        var step = DoctorStep(
            name: "tcp", outcome: .ok, message: "connected to \(reached.joined(separator: ", "))")
        step.facts = [("connected", .texts(reached)), ("problems", .texts(problems))]
        if !problems.isEmpty {
            step.outcome = connected == nil ? .failed : .warning
            step.message =
                (connected == nil ? "" : step.message + "; but not to ")
                + problems.joined(separator: "; ")
            step.advice = advice
        }
        say(step)
        guard let connected else { throw Stop() }
        return connected
    }

    private func tls(
        _ upstream: UpstreamSettings, _ descriptor: Int32, _ say: (DoctorStep) -> Void
    ) throws(Stop) -> ServerConnection {
        let connection: ServerConnection
        do {
            let target = try UpstreamTarget(upstream)
            connection = try ServerConnection.secure(
                descriptor, context: target.tls, serverName: target.serverName, pool: ChunkPool(),
                until: Deadline(after: upstream.connectTimeout))
        } catch let error as ConnectionFailure {
            say(
                DoctorStep(
                    name: "tls", outcome: .failed, message: error.reason, advice: error.advice))
            throw Stop()
        } catch {
            Socket.close(descriptor)
            say(
                DoctorStep(
                    name: "tls", outcome: .failed, message: "\(error)",
                    advice: "the proxy would not start with this"))
            throw Stop()
        }
        guard let certificate = connection.peerCertificate else {
            say(
                DoctorStep(
                    name: "tls", outcome: .warning,
                    message: "switched off: what is said, the password too, can be read on the way",
                    advice: "leave tls: off out if the server can do TLS"))
            return connection
        }
        let names = certificate.names.joined(separator: ", ")
        var step = DoctorStep(
            name: "tls", outcome: .ok,
            message: "\(connection.peerDescription); certificate for \(names)"
                + " (subject \(escaped(certificate.subject)), issuer"
                + " \(escaped(certificate.issuer))) until \(certificate.notAfter)")
        step.facts = [
            ("protection", .text(connection.peerDescription)),
            ("certificate_subject", .text(certificate.subject)),
            ("certificate_issuer", .text(certificate.issuer)),
            ("certificate_names", .texts(certificate.names)),
            ("certificate_until", .text(certificate.notAfter)),
            ("certificate_days_left", .number(certificate.daysLeft)),
        ]
        if certificate.daysLeft < Self.certificateDays {
            step.outcome = .warning
            step.advice =
                "the certificate has \(certificate.daysLeft) days left: see that it is renewed"
        }
        say(step)
        return connection
    }

    // MARK: Login

    private func login(
        _ user: UserSettings, _ upstream: UpstreamSettings, _ credential: Credential,
        _ connection: ServerConnection, _ say: (DoctorStep) -> Void
    ) throws(Stop) -> ServerReply {
        var step = DoctorStep(name: "login", outcome: .failed, message: "")
        do throws(ConnectionFailure) {
            let reply = try connection.login(
                credential, name: "redis-auth-proxy-doctor",
                until: Deadline(after: settings.loginTimeout))
            if reply.value("proto") != nil {
                step.outcome = .ok
                step.message = "as \(user.userName)"
                say(step)
                return reply
            }
            if case .error(let text) = reply {
                step.message = "the server said: \(escaped(text))"
                step.message += credential.origin.map { "; the credential was \($0)" } ?? ""
                step.advice = advice(forRefusal: text, user)
            } else {
                step.message = "the server's answer is not an answer to HELLO"
                step.advice = "it must be Redis 6 or later, or Valkey"
            }
        } catch {
            step.message = error.reason
            step.advice = error.advice
        }
        say(step)
        throw Stop()
    }

    private func advice(forRefusal text: String, _ user: UserSettings) -> String? {
        let code = text.prefix { $0 != " " }
        switch code {
        case "WRONGPASS" where user.credentials.isIAM: return EventLog.causesOfRefusedToken
        case "WRONGPASS":
            return "the password is wrong, or there is no user \(user.userName), or it is off: the"
                + " server does not say which, but its ACL LOG notes the attempt, and ACL GETUSER"
                + " \(user.userName) tells an administrator"
        case "LOADING": return "wait until the server has read its data"
        case "DENIED": return "the server is in protected mode: give it users or bind it"
        case "ERR" where text.contains("unknown command"):
            return "the server has no HELLO: it must be Redis 6 or later, or Valkey"
        case "ERR" where text.contains("max number of clients"):
            return "raise maxclients on the server, or see who holds its connections"
        default: return nil
        }
    }

    // MARK: Questions

    private func identity(_ user: UserSettings, _ session: Session) -> DoctorStep {
        let reply = session.ask("ACL", "WHOAMI")
        var step = DoctorStep(name: "identity", outcome: .ok, message: "")
        switch reply {
        case .text(let name) where String(decoding: name, as: UTF8.self) == user.userName:
            step.message = "ACL WHOAMI says \(user.userName)"
        case .text(let name):
            step.outcome = .warning
            step.message =
                "wanted \(user.userName), ACL WHOAMI says"
                + " \(escaped(String(decoding: name, as: UTF8.self)))"
            step.advice = "something between here and the server changes the user"
        case .error(let text):
            step.message =
                "ACL WHOAMI may not be asked (\(Self.code(text))); the login was accepted"
        default:
            step.outcome = .unknown
            step.message = "ACL WHOAMI got no answer that makes sense"
        }
        return step
    }

    private func server(_ session: Session) -> DoctorStep {
        let product = session.hello.value("server")?.string ?? "server"
        let mode = session.hello.value("mode")?.string ?? ""
        let role = session.hello.value("role")?.string ?? ""
        var step = DoctorStep(
            name: "server", outcome: .ok,
            message: escaped("\(product) \(session.version), \(mode), \(role)"))
        step.facts = [
            ("server", .text(product)), ("version", .text(session.version)), ("mode", .text(mode)),
            ("role", .text(role)),
        ]
        var problems: [String] = []
        if mode == "sentinel" {
            step.outcome = .failed
            step.advice = "it is a Sentinel, which holds no data: give the address of a server"
            return step
        }
        if role != "master", !role.isEmpty {
            step.outcome = .warning
            problems.append(
                "it is a replica: reads work, writes are answered with -READONLY; give the"
                    + " address of the primary")
        }
        let shape = ClusterShape(hello: session.hello) { session.ask($0, $1) }
        if case .shards(let count) = shape { step.facts.append(("shards", .number(count))) }
        switch shape {
        case .none: break
        case .shards(1):
            step.message +=
                ", one shard: every key is behind this endpoint; as in any cluster the keys of one"
                + " command must share a slot, and SELECT is refused (before Valkey 9)"
        case .shards: problems += [shape.limits, shape.remedy].compactMap(\.self)
        case .unknown:
            if step.outcome == .ok { step.outcome = .unknown }
            problems += [shape.limits, shape.remedy].compactMap(\.self)
        }
        if !problems.isEmpty {
            if step.outcome == .ok { step.outcome = .warning }
            step.advice = problems.joined(separator: "; ")
        }
        return step
    }

    // MARK: Access string

    private func access(
        _ user: UserSettings, _ upstream: UpstreamSettings, _ session: Session
    ) -> DoctorStep {
        var step = DoctorStep(name: "access", outcome: .ok, message: "")
        guard let wanted = user.accessString else {
            step.message = "no access_string to compare with"
            return step
        }
        let dialect = AccessDialect(version: session.version)
        // What is newer than this server is no mistake in the file, but is one here.
        let isAWS = isManagedByAWS(host: upstream.address.host)
        let problems = wanted.reread(dialect).lint(dialect: dialect, isAWS: isAWS)
            .filter { $0.severity == .error }
        if let problem = problems.first {
            step.outcome = .failed
            step.message =
                "\(session.version) does not understand access_string: \(problem.message)"
            step.advice = "write it for this server's version"
            return step
        }
        let actual: AccessString
        switch accessString(of: user.userName, session) {
        case .success(let text): actual = text
        case .failure(let refusal):
            step.outcome = .unknown
            step.message =
                "access_string cannot be compared: this user may ask neither ACL GETUSER nor ACL"
                + " LIST (\(refusal.code))"
            step.advice =
                "compare it as an administrator: ACL GETUSER \(user.userName)"
            return step
        }
        let differences = AccessPermissions(wanted, dialect: dialect)
            .differences(from: AccessPermissions(actual, dialect: dialect))
        step.facts = [("differences", .texts(differences))]
        if differences.isEmpty {
            step.message = "the server allows what access_string says"
        } else {
            step.outcome = .failed
            step.message =
                "the server differs from access_string: \(differences.joined(separator: "; "))"
            step.advice = "change the user on the server, or access_string"
        }
        return step
    }

    private struct Refusal: Error {
        let code: String
    }

    /// What the server says that a user may do, from ACL GETUSER, or from ACL LIST, which managed
    /// servers have where they do not have the other.
    private func accessString(
        of name: String, _ session: Session
    ) -> Result<AccessString, Refusal> {
        let answer = session.ask("ACL", "GETUSER", name)
        if answer.items != nil {
            return .success(AccessString(ofUser: answer))
        }
        let list = session.ask("ACL", "LIST")
        for line in (list.items ?? []).compactMap(\.string) {
            let words = line.split(separator: " ")
            guard words.count > 2, words[0] == "user", words[1] == name else { continue }
            let rules = words.dropFirst(2).filter { $0.first != "#" }
            return .success(AccessString(rules.joined(separator: " "), isFromServer: true))
        }
        if case .error(let text) = answer { return .failure(Refusal(code: Self.code(text))) }
        return .failure(Refusal(code: "no answer"))
    }

    /// `NOPERM` of `NOPERM this user has no permissions …`.
    private static func code(_ text: String) -> String {
        let word = text.prefix { $0 != " " }
        return word.allSatisfy { $0.isASCII && $0.isUppercase } ? String(word) : escaped(text)
    }
}

extension StringProtocol {
    /// Everything before the last slash.
    fileprivate var directory: String {
        guard let slash = lastIndex(of: "/") else { return "." }
        return slash == startIndex ? "/" : String(self[..<slash])
    }
}
