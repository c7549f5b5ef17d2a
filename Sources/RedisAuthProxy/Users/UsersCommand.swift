import ArgumentParser
import Configuration
import FoundationEssentials

/// `users`: what the configuration declares of its users, and making it so.
struct UsersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "users",
        abstract: "List, check, explain and apply the users that a configuration declares.",
        discussion: """
            A user of the configuration whose access_string is written down is declared: what it \
            may do by that, and how it logs in by its credentials.

            EXAMPLES
              redis-auth-proxy users list --config proxy.yaml
              redis-auth-proxy users lint --config proxy.yaml --strict
              redis-auth-proxy users apply --config proxy.yaml --dry-run \\
                  --admin-user admin --admin-password-file /run/secrets/admin
              redis-auth-proxy users explain --config proxy.yaml --offline app GET app:1
            """,
        subcommands: [
            UsersListCommand.self, UsersLintCommand.self, UsersApplyCommand.self,
            UsersExplainCommand.self,
        ]
    )

    /// A value as one line of JSON, its keys sorted.
    static func json(_ value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else {
            preconditionFailure("texts, numbers and lists of them can be encoded")
        }
        return String(decoding: data, as: UTF8.self)
    }
}
