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
        do throws(RotationFailure) {
            try access { (client, credential) throws(AWSFailure) in
                try client.setPasswords(passwords, of: arn, signedBy: credential)
            }
        } catch {
            // Nobody says that AWS's words repeat what they refuse; nobody says that they do not.
            let reason = passwords.reduce(error.reason) { reason, password in
                Credential(userName: arn.user, secret: password).redacting(reason)
            }
            throw RotationFailure(error.kind, reason, advice: error.advice)
        }
        return .changed
    }

    private func describe() throws(RotationFailure) -> CacheUser {
        try access { (client, credential) throws(AWSFailure) in
            try client.describe(arn, signedBy: credential)
        }
    }
}
