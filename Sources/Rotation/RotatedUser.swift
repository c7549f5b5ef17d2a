// Whose password it is: what a rotation asks of the service that the user belongs to, and the users of
// ElastiCache and MemoryDB. A server of one's own is in RedisAuthProxy, beside what speaks to servers.

package import AWS
package import Identity

/// Whether a user can be changed now.
package enum UserState: Sendable, Equatable {
    /// It can, and every node knows its passwords.
    case ready
    /// Not yet, with the service's word for it.
    case busy(String)
}

/// What a change came to.
package enum PasswordChange: Sendable, Equatable {
    case changed
    /// The user had these passwords and no others already.
    case unchanged
    /// Done, but the servers named lose it when they restart; with the reason.
    case changedUntilRestart(String)
}

/// A user whose passwords can be replaced.
package protocol RotatedUser {
    /// In words, for messages.
    var name: String { get }
    /// The name that it logs in with, if the service says so.
    func userName() throws(RotationFailure) -> String?
    /// What its service takes for a password.
    var rules: PasswordRules { get }

    /// Throws `unusable` if it is no user with passwords, `unavailable` if it is not there.
    func state() throws(RotationFailure) -> UserState

    /// Makes these its passwords, the newest first, in place of all that it has. Throws `busy` if it
    /// is not ready. Live connections stay.
    func setPasswords(_ passwords: [Secret]) throws(RotationFailure) -> PasswordChange
}

extension Patience {
    /// Waits while a user is being changed; `note` is told once that it is.
    package mutating func waitUntilReady(
        _ name: String, note: (String) -> Void,
        _ state: () throws(RotationFailure) -> UserState
    ) throws(RotationFailure) {
        var isNoted = false
        while case .busy(let status) = try state() {
            if !isNoted {
                note("user \(name) is \(status)")
                isNoted = true
            }
            guard wait() else { throw RotationFailure(timedOut: "user \(name) is \(status)") }
        }
    }

    /// Changes a user once it is ready, and again while that is refused since somebody was faster.
    package mutating func change<Answer>(
        _ name: String, note: (String) -> Void,
        state: () throws(RotationFailure) -> UserState,
        _ change: () throws(RotationFailure) -> Answer
    ) throws(RotationFailure) -> Answer {
        while true {
            try waitUntilReady(name, note: note, state)
            do throws(RotationFailure) {
                return try change()
            } catch {
                guard error.kind == .busy else { throw error }
                guard wait() else { throw RotationFailure(timedOut: error.reason) }
            }
        }
    }
}

/// A user of ElastiCache or MemoryDB.
package struct CacheUserAccount: RotatedUser {
    private let arn: CacheUserARN
    private let access: AWSAccess

    package init(_ arn: CacheUserARN, access: AWSAccess) {
        self.arn = arn
        self.access = access
    }

    package var name: String {
        "\(arn.user) of \(arn.service == .elastiCache ? "ElastiCache" : "MemoryDB")"
    }

    package var rules: PasswordRules { .aws }

    package func userName() throws(RotationFailure) -> String? { try describe().name }

    package func state() throws(RotationFailure) -> UserState {
        let user = try describe()
        guard user.status != "deleting" else {
            throw RotationFailure(.unavailable, "user \(name) is being deleted")
        }
        guard user.authentication == "password" else {
            throw RotationFailure(
                .unusable,
                "user \(name): wanted one that authenticates with passwords, got"
                    + " \(user.authentication)",
                advice: user.authentication == "iam"
                    ? "it needs no rotation: use IAM tokens"
                    : "give it a password first, by hand")
        }
        return user.status == "active" ? .ready : .busy(user.status)
    }

    package func setPasswords(_ passwords: [Secret]) throws(RotationFailure) -> PasswordChange {
        try modify(accessString: nil, .passwords(passwords))
        return .changed
    }

    /// Makes it; throws `unusable` or `denied` if its service does not take it so.
    package func create(
        name: String, engine: String, accessString: String,
        _ authentication: CacheUserAuthentication
    ) throws(RotationFailure) {
        try ask(authentication) { (client, credential) throws(AWSFailure) in
            try client.create(
                arn, name: name, engine: engine, accessString: accessString, authentication,
                signedBy: credential)
        }
    }

    /// Changes what is given. Throws `busy` if it is not ready. Live connections stay.
    package func modify(
        accessString: String?, _ authentication: CacheUserAuthentication?
    ) throws(RotationFailure) {
        try ask(authentication) { (client, credential) throws(AWSFailure) in
            try client.modify(
                arn, accessString: accessString, authentication, signedBy: credential)
        }
    }

    private func ask(
        _ authentication: CacheUserAuthentication?,
        _ body: (AWSClient, AWSCredential) throws(AWSFailure) -> Void
    ) throws(RotationFailure) {
        do throws(RotationFailure) {
            try access(body)
        } catch {
            guard case .passwords(let passwords)? = authentication else { throw error }
            // Nobody says that AWS's words repeat what they refuse; nobody says that they do not.
            let reason = passwords.reduce(error.reason) { reason, password in
                Credential(userName: arn.user, secret: password).redacting(reason)
            }
            throw RotationFailure(error.kind, reason, advice: error.advice)
        }
    }

    /// nil: there is no such user.
    package func find() throws(RotationFailure) -> CacheUser? {
        try access { (client, credential) throws(AWSFailure) in
            do throws(AWSFailure) {
                return try client.describe(arn, signedBy: credential)
            } catch {
                guard error.isMissingUser else { throw error }
                return nil
            }
        }
    }

    private func describe() throws(RotationFailure) -> CacheUser {
        try access { (client, credential) throws(AWSFailure) in
            try client.describe(arn, signedBy: credential)
        }
    }
}
