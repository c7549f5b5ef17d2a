// What became of a login upstream, in kinds that are few enough to be counted one by one.

/// Why a login upstream, or its renewal, did not work.
package enum LoginFailure: String, Sendable, CaseIterable {
    /// No connection, or none that held until the login was answered.
    case unreachable
    /// There is nothing to log in with.
    case noCredential = "no_credential"
    /// The login was accepted, the database was not.
    case databaseRefused = "database_refused"
    /// WRONGPASS: name, password or token.
    case wrongPassword = "wrong_password"
    /// NOAUTH, NOPERM: the user may not do what a login is.
    case notPermitted = "not_permitted"
    case tooManyClients = "too_many_clients"
    case protectedMode = "protected_mode"
    /// LOADING, MASTERDOWN, BUSY: later.
    case notNow = "not_now"
    /// The server has no HELLO.
    case unknownCommand = "unknown_command"
    case other

    /// What kind a server's error line is.
    ///
    /// Source of the prefixes: redis 7.0, acl.c (WRONGPASS), networking.c (max number of clients,
    /// DENIED), server.c (LOADING, MASTERDOWN, BUSY).
    package init(reply: String) {
        let kinds: [(String, LoginFailure)] = [
            ("WRONGPASS", .wrongPassword), ("NOAUTH", .notPermitted), ("NOPERM", .notPermitted),
            ("ERR max number of clients", .tooManyClients), ("DENIED", .protectedMode),
            ("LOADING", .notNow), ("MASTERDOWN", .notNow), ("BUSY", .notNow),
            ("ERR unknown command", .unknownCommand),
        ]
        self = kinds.first { reply.hasPrefix($0.0) }?.1 ?? .other
    }
}

/// The last word on a user's logins.
package enum LoginOutcome: Sendable, Equatable {
    case accepted
    case failed(LoginFailure)
}
