import ArgumentParser

/// The command line's root: what the program is, and its subcommands.
struct ProxyCommand: ParsableCommand {
    /// What `--version` prints.
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "redis-auth-proxy",
        abstract: "Plain Redis for local clients, authenticated TLS to the server.",
        discussion: """
            Clients on this machine speak plain RESP to the proxy and need no password. The proxy \
            logs in to the server over verified TLS as the ACL user that belongs to the listener, \
            shares its connections among the clients, and follows changes of the password.

            EXAMPLES
              redis-auth-proxy demo
              redis-auth-proxy run --listen 127.0.0.1:6379 \\
                  --upstream rediss://cache.example:6379 \\
                  --user app --password-file /run/secrets/app
              redis-auth-proxy check --config /etc/redis-auth-proxy.yaml
              redis-auth-proxy doctor --config /etc/redis-auth-proxy.yaml
              redis-auth-proxy run --config /etc/redis-auth-proxy.yaml

            EXIT CODES
            \(Exit.table)
            """,
        version: version,
        subcommands: [
            RunCommand.self, WaitCommand.self, CheckCommand.self, DoctorCommand.self,
            TokenCommand.self, PolicyCommand.self, RotateCommand.self, UsersCommand.self,
            HashPasswordCommand.self, DemoCommand.self,
        ]
    )
}
