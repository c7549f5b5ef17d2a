import AWS
import ArgumentParser
import Configuration
import Credentials
import Identity
import Rotation
import Server
import Telemetry
import Transport

/// `users explain`: whether a user may send a command, and by which rule.
struct UsersExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Say whether a user may send a command, and which rule says so.",
        discussion: """
            Asks the user's server with ACL DRYRUN, which Redis 7 and later and Valkey have: as an \
            administrator if one is given, or as the user itself if it may ask. Where that cannot be \
            asked, and with --offline, the user's access_string is read here, with the keys of the \
            command from a table. What was asked is said. Nothing is executed.

            All flags stand before USER; what stands behind COMMAND is the command's own.

            EXIT CODES
              0   allowed
              64  the command line, or the command, cannot be understood
              69  nobody can tell: no server to ask, or the user is not there
              77  not allowed, or the login was refused
              78  the configuration cannot be used, or declares no access_string and there is no
                  server to ask

            EXAMPLES
              redis-auth-proxy users explain --config proxy.yaml --offline app GET app:1
              redis-auth-proxy users explain --config proxy.yaml \\
                  --admin-user admin --admin-password-file /run/secrets/admin app SET app:1 x
            """)

    @OptionGroup var file: ConfigurationFile
    @OptionGroup var admin: AdministratorOptions

    @Option(help: ArgumentHelp("The profile in the shared AWS files.", valueName: "name"))
    var profile: String?

    @Flag(help: "Ask no server.")
    var offline = false

    @Flag(help: "One JSON object in place of lines for people.")
    var json = false

    @Argument(help: "The user, by its key in the configuration.")
    var user: String

    @Argument(parsing: .captureForPassthrough, help: "A command and its arguments.")
    var command: [String]

    private struct Result: Encodable {
        struct Key: Encodable {
            let key: String
            let reads: Bool
            let writes: Bool
        }

        struct Rule: Encodable {
            let rule: String
            /// Counted from 1.
            let character: Int
        }

        var user = ""
        var command: [String] = []
        var allowed = false
        var reason = ""
        var rules: [Rule] = []
        /// Who said so.
        var source = ""
        var keys: [Key] = []
        var keysSource = ""
        var warnings: [String] = []

        enum CodingKeys: String, CodingKey {
            case user, command, allowed, reason, rules, source, keys, warnings
            case keysSource = "keys_source"
        }
    }

    func validate() throws {
        guard !command.isEmpty else {
            throw ValidationError("COMMAND: wanted a command, got none.")
        }
        if offline, admin.administrator != nil {
            throw ValidationError("--offline asks no server: leave the administrator out.")
        }
    }

    func run() throws {
        let settings = try file.settings()
        guard let index = settings.users.firstIndex(where: { $0.name == user }) else {
            let names = settings.users.map(\.name).joined(separator: ", ")
            throw ValidationError("USER: wanted one of \(names), got \(escaped(user)).")
        }
        try prepareProcess(blocking: [])
        let result: Result
        do {
            result = try explain(UserIndex(index), settings)
        } catch let error as RotationFailure {
            complain("users explain: \(escaped("\(error)"))")
            throw Exit(error.kind).code
        }
        report(result)
        if !result.allowed { throw Exit.denied.code }
    }

    private func report(_ result: Result) {
        guard !json else { return say(UsersCommand.json(result)) }
        let words = result.command.joined(separator: " ")
        let verdict = result.allowed ? "allowed" : "denied"
        let joint = result.reason.hasPrefix("by ") ? " " : ": "
        say(escaped("\(verdict)\(joint)\(result.reason)"))
        say(escaped("  command  \(words)"))
        say(escaped("  user     \(result.user)"))
        say(escaped("  said by  \(result.source)"))
        let keys = result.keys.map { key in
            let uses = [key.reads ? "read" : nil, key.writes ? "write" : nil].compactMap(\.self)
            return key.key + (uses.isEmpty ? "" : " (\(uses.joined(separator: ", ")))")
        }
        let list = keys.isEmpty ? "none" : keys.joined(separator: ", ")
        say(escaped("  keys     \(list), by \(result.keysSource)"))
        for warning in result.warnings { complain("warning: \(escaped(warning))") }
    }

    // MARK: The verdict

    private func explain(_ index: UserIndex, _ settings: Settings) throws -> Result {
        let user = settings.user(index)
        var result = Result()
        result.user = user.userName
        result.command = command
        result.keysSource = "the built-in table"
        var asked = ServerWords()
        if !offline { asked = try ask(index, settings, &result) }
        let request: AccessRequest?
        do throws(AccessRequest.Mistake) {
            request = try AccessRequest(command)
        } catch {
            // A server may know more commands.
            guard asked.verdict != nil else { throw Self.usage(error) }
            request = nil
        }
        let keys = asked.keys ?? request?.keys
        result.keys = (keys ?? []).map(Self.shown)

        let dialect = asked.dialect
        let declared = user.accessString.map { $0.reread(dialect) }
        func verdict(_ access: AccessString?) throws(RotationFailure) -> AccessVerdict? {
            guard let access, let request else { return nil }
            guard let keys else {
                guard asked.verdict == nil else { return nil }
                throw RotationFailure(
                    .unavailable, "which keys \(request.name) uses is not known here",
                    advice: "ask a server that knows it, without --offline")
            }
            return AccessVerdict(access, request, keys: keys, dialect: dialect)
        }
        let ours = try verdict(declared)
        if let said = asked.verdict {
            result.allowed = said.isAllowed
            result.source = said.source
            // The server names no rule: its own rules do, as far as they are known.
            let actual = try verdict(asked.access)
            if let explained = [actual, ours].compactMap(\.self).first(where: {
                $0.isAllowed == said.isAllowed
            }) {
                result.reason = explained.reason
                result.rules = Self.rules(explained)
                if actual == nil { result.reason += " (by access_string)" }
            } else {
                result.reason = said.words
            }
            if let ours, ours.isAllowed != said.isAllowed {
                result.warnings.append(
                    "access_string says otherwise: \(ours.isAllowed ? "allowed" : "denied"),"
                        + " \(ours.reason); users apply makes the user on the server so")
            }
        } else {
            guard let ours, let declared else {
                throw RotationFailure(
                    .unusable, "user \(user.name) declares no access_string",
                    advice: "write one, or let a server be asked: --admin-user and"
                        + " --admin-password-file")
            }
            result.allowed = ours.isAllowed
            result.reason = ours.reason
            result.rules = Self.rules(ours)
            result.source = "access_string of the configuration"
            if !AccessPermissions(declared, dialect: dialect).isOn {
                result.warnings.append("the user is off: nobody can log in as it")
            }
        }
        return result
    }

    private static func rules(_ verdict: AccessVerdict) -> [Result.Rule] {
        verdict.rules.map { Result.Rule(rule: $0.text, character: $0.offset + 1) }
    }

    private static func shown(_ use: AccessKeyUse) -> Result.Key {
        Result.Key(
            key: String(decoding: use.key, as: UTF8.self), reads: use.reads, writes: use.writes)
    }

    private static func usage(_ mistake: AccessRequest.Mistake) -> ValidationError {
        switch mistake {
        case .noSuchCommand(let name):
            ValidationError(
                "COMMAND: wanted a command that is known here, got \(escaped(name)): ask a server"
                    + " that knows it, without --offline.")
        case .noSuchSubcommand(let name, let command):
            ValidationError(
                "COMMAND: wanted a subcommand of \(command), got \(escaped(name)).")
        case .wrongNumberOfArguments(let name):
            ValidationError("COMMAND: wrong number of arguments for \(name).")
        }
    }

    // MARK: The server

    /// What a server said; nil where it could not be asked.
    private struct ServerWords {
        var verdict: (isAllowed: Bool, words: String, source: String)?
        var keys: [AccessKeyUse]?
        /// The user as it is there.
        var access: AccessString?
        var dialect = AccessDialect.newest
    }

    private func ask(
        _ index: UserIndex, _ settings: Settings, _ result: inout Result
    ) throws -> ServerWords {
        var words = ServerWords()
        let user = settings.user(index)
        let upstream = settings.upstream(of: index)
        let servers = try ServerLogins(upstream)
        let address = upstream.address
        let credential: Credential
        if let administrator = admin.administrator {
            guard servers.tls != nil else { throw ServerLogins.wantsTLS(upstream) }
            credential = try administrator.credential { () throws(RotationFailure) in
                try AWSAccess(profile: profile)
            }
        } else {
            guard let own = try ownCredential(index, settings, &result) else { return words }
            credential = own
        }
        let connection: ServerConnection
        do throws(RotationFailure) {
            switch try servers.login(at: address, credential) {
            case .accepted(let accepted, let hello):
                connection = accepted
                words.dialect = AccessDialect(version: hello.value("version")?.string ?? "")
            case .refused(let reason):
                throw RotationFailure(
                    .denied, "\(address): refuses \(credential.userName): \(reason)")
            }
        } catch {
            // Whoever gave an administrator wants the server's word and no other.
            guard admin.administrator == nil else { throw error }
            result.warnings.append("the server could not be asked: \(error)")
            return words
        }
        func ask(_ arguments: [String]) throws(RotationFailure) -> ServerReply {
            try servers.ask(connection, at: address, arguments)
        }
        let place = "\(address), as \(credential.userName)"
        switch try ask(["ACL", "DRYRUN", user.userName] + command) {
        case .text(let text):
            let said = String(decoding: text, as: UTF8.self)
            words.verdict = (said == "OK", said, "ACL DRYRUN of \(place)")
        case .error(let said):
            guard let reason = try Self.reasonNotToAsk(said, user.userName, "\(address)") else {
                throw ValidationError("COMMAND: the server says: \(escaped(said)).")
            }
            result.warnings.append("the server was not asked: \(reason)")
        default:
            throw RotationFailure(
                .unavailable, "\(address): its answer is not an answer to ACL DRYRUN")
        }
        try askForKeys(ask, place, &words, &result)
        if admin.administrator != nil,
            case .list(let items) = try ask(["ACL", "GETUSER", user.userName])
        {
            words.access = AccessString(ofUser: .list(items))
        }
        return words
    }

    /// Why ACL DRYRUN cannot be asked there; nil: it can, and the command is wrong.
    private static func reasonNotToAsk(
        _ said: String, _ userName: String, _ address: String
    ) throws(RotationFailure) -> String? {
        let text = said.lowercased()
        if text.hasPrefix("noperm") { return "whoever logs in there may not ask ACL DRYRUN" }
        if text.contains("unknown subcommand") || text.contains("unknown command") {
            return "it has no ACL DRYRUN"
        }
        if text.hasPrefix("err user '") {
            throw RotationFailure(
                .unavailable, "\(address): there is no user \(userName)",
                advice: "make it with users apply, or ask with --offline")
        }
        return nil
    }

    private func askForKeys(
        _ ask: ([String]) throws(RotationFailure) -> ServerReply, _ place: String,
        _ words: inout ServerWords, _ result: inout Result
    ) throws(RotationFailure) {
        // Redis 7.0 wants an argument besides the command's name, without which there are no keys.
        guard command.count > 1 else { return }
        let hasFlags = words.dialect >= .redis7
        let question = hasFlags ? "GETKEYSANDFLAGS" : "GETKEYS"
        switch try ask(["COMMAND", question] + command) {
        case .list(let items):
            words.keys = items.compactMap { item in
                if case .text(let key) = item {
                    return AccessKeyUse(key: key, reads: true, writes: true)
                }
                guard let pair = item.items, pair.count == 2, case .text(let key) = pair[0] else {
                    return nil
                }
                let flags = Set(pair[1].items?.compactMap(\.string) ?? [])
                return AccessKeyUse(
                    key: key, reads: flags.contains("access"),
                    writes: !flags.isDisjoint(with: ["update", "insert", "delete"]))
            }
        case .error(let said) where said.contains("no key arguments"): words.keys = []
        default: return
        }
        result.keysSource = "COMMAND \(question) of \(place)"
    }

    /// nil: there is none, and why is in the warnings.
    private func ownCredential(
        _ index: UserIndex, _ settings: Settings, _ result: inout Result
    ) throws -> Credential? {
        var alone = settings
        alone.users = [settings.user(index)]
        let environment = PasswordEnvironment.take(alone.passwordVariables)
        let logger = Log.make("users", level: .critical, format: settings.log.format)
        let store = try startedStore(alone, environment, logger: logger)
        defer { store.stop() }
        let snapshot = store.snapshot(of: UserIndex(0))
        if snapshot.credential == nil {
            result.warnings.append(
                "the server was not asked: no credential: \(snapshot.failure ?? "there is none")")
        }
        return snapshot.credential
    }
}
