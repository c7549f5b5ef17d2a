import ArgumentParser
import Configuration
import Identity

/// `users list`: who there is, where, and who becomes it.
struct UsersListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Print the users of a configuration.",
        discussion: """
            For each user its server, the name that it logs in with, where its credential comes \
            from, which clients of which listeners become it, and its access string. Nothing is \
            read but the configuration, and nothing is connected to.
            """)

    @OptionGroup var file: ConfigurationFile

    @Flag(help: "One JSON object in place of lines for people.")
    var json = false

    private struct User: Encodable {
        struct Clients: Encodable {
            let listener: String
            let identity: String
        }

        let name: String
        let userName: String
        let upstream: String
        let address: String
        let authentication: String
        let credentials: String
        let clients: [Clients]
        /// As written; null if none is declared.
        let accessString: String?

        enum CodingKeys: String, CodingKey {
            case name, upstream, address, authentication, credentials, clients
            case userName = "user_name"
            case accessString = "access_string"
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(name, forKey: .name)
            try container.encode(userName, forKey: .userName)
            try container.encode(upstream, forKey: .upstream)
            try container.encode(address, forKey: .address)
            try container.encode(authentication, forKey: .authentication)
            try container.encode(credentials, forKey: .credentials)
            try container.encode(clients, forKey: .clients)
            // Also where there is none: a key that is missing looks like a misspelt one.
            try container.encode(accessString, forKey: .accessString)
        }
    }

    func run() throws {
        let settings = try file.settings()
        let users = settings.users.indices.map { Self.user(UserIndex($0), settings) }
        guard !json else { return say(UsersCommand.json(["users": users])) }
        for (index, user) in users.enumerated() {
            let upstream = settings.upstream(of: UserIndex(index))
            say(escaped(user.name))
            Self.line("server", "\(user.upstream) (\(user.address), \(upstream.protectionText))")
            Self.line("logs in as", user.userName)
            Self.line("credentials", user.credentials)
            if user.clients.isEmpty { Self.line("clients", "none: no listener leads to it") }
            for (position, clients) in user.clients.enumerated() {
                Self.line(
                    position == 0 ? "clients" : "", "\(clients.listener): \(clients.identity)")
            }
            Self.line("access", user.accessString ?? "none declared")
        }
    }

    private static func line(_ name: String, _ text: String) {
        let blanks = String(repeating: " ", count: max(1, 14 - name.count))
        say("  \(name)\(blanks)\(escaped(text))")
    }

    private static func user(_ index: UserIndex, _ settings: Settings) -> User {
        let user = settings.user(index)
        let upstream = settings.upstream(of: index)
        let clients = settings.listeners.flatMap { listener in
            listener.identities.filter { $0.user == index }.map { rule in
                User.Clients(
                    listener: "\(listener.address)",
                    identity: rule.principal == "any" ? "any client" : rule.principal)
            }
        }
        return User(
            name: user.name, userName: user.userName, upstream: upstream.name,
            address: "\(upstream.address)",
            authentication: user.credentials.isIAM ? "iam" : "password",
            credentials: "\(user.credentials)", clients: clients,
            accessString: user.accessString?.text)
    }
}
