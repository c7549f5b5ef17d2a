// What the proxy logs in with upstream, and how the control plane hands it to the data plane.
//
//   password    good until the server says otherwise; a new one is news
//   IAM token   good for minutes; a new one comes long before that, and is not news: a connection
//               logs in again when it has been logged in for long, with whatever is newest then

/// A user name and the secret that goes with it, taken from one source at one moment.
package struct Credential: Sendable, Equatable {
    /// What the secret is, and so when a connection that is logged in with it must do so again.
    package enum Kind: Sendable, Equatable {
        /// A password: connections log in again when a snapshot brings another one.
        case password
        /// A token of AWS's IAM: connections log in again when `LoginLife` says so, not when a
        /// snapshot brings another one, which happens every minute or sooner.
        case iamToken(LoginLife)
    }

    /// The ACL user's name as AUTH wants it.
    package let userName: String
    package let secret: Secret
    package let kind: Kind
    /// The last moment at which the secret may be sent to a server, in nanoseconds of
    /// CLOCK_MONOTONIC, the data plane's clock; nil if it does not expire. The time that it needs
    /// to get there is taken off already. Later than this there is no credential to log in with:
    /// ask for a refresh and wait for a snapshot with another one.
    package let usableUntil: UInt64?
    /// What the source's name does not say of where it comes from, in words for the operator and
    /// without a secret: whose key signed a token, which version of a secret it is.
    package let origin: String?

    package init(
        userName: String, secret: Secret, kind: Kind = .password, usableUntil: UInt64? = nil,
        origin: String? = nil
    ) {
        self.userName = userName
        self.secret = secret
        self.kind = kind
        self.usableUntil = usableUntil
        self.origin = origin
    }

    /// Whether it may still be sent to a server at `nanoseconds` of CLOCK_MONOTONIC.
    package func isUsable(at nanoseconds: UInt64) -> Bool {
        usableUntil.map { nanoseconds <= $0 } ?? true
    }
}

extension Credential {
    /// What a server said, without what it repeats of the secret.
    ///
    /// A server without HELLO answers a login with `ERR unknown command …, with args beginning with:`
    /// and up to 128 bytes of the arguments (Redis, server.c, rejectCommand).
    package func redacting(_ reply: String) -> String {
        let text = reply.utf8
        let pieces = reply.split(
            separator: ", with args", maxSplits: 1, omittingEmptySubsequences: false)
        if pieces.count > 1 { return "\(pieces[0]) (the rest is not shown)" }
        let repeats = secret.withBytes { secret in
            // A part of a long one is enough to look like it.
            let part = secret.prefix(8)
            guard !part.isEmpty, part.count <= text.count else { return false }
            var start = text.startIndex
            while start != text.endIndex {
                if text[start...].starts(with: part) { return true }
                text.formIndex(after: &start)
            }
            return false
        }
        return repeats ? "(not shown, because it repeats the password)" : reply
    }
}

extension Credential: CustomStringConvertible {
    package var description: String { "\(userName) <secret>" }
}

/// How long a connection that logged in with an IAM token stays logged in, counted from its last
/// AUTH or HELLO that was accepted.
///
/// Source: ElastiCache and MemoryDB, "Authenticating with IAM": a connection is disconnected after
/// 12 hours and prolonged by another AUTH or HELLO with a new token.
package struct LoginLife: Sendable, Hashable {
    /// Log in again from here on.
    package var renewAfter: Duration
    /// The server closes the connection here; longer than `renewAfter`.
    package var limit: Duration

    package init(renewAfter: Duration = .seconds(8 * 3600), limit: Duration = .seconds(12 * 3600)) {
        self.renewAfter = renewAfter
        self.limit = limit
    }
}

/// The state of one user's credential as the control plane last saw it: immutable, numbered,
/// handed to each worker's mailbox, dead with its last holder.
package struct CredentialSnapshot: Sendable {
    /// Grows by one with each publication for this user, whether or not the secret changed;
    /// a refused login waits for a version above the one that it used.
    package let version: UInt64
    /// The newest good credential, if there has been one: an unreadable source keeps the last one.
    package let credential: Credential?
    /// Why the newest fetch brought nothing, in words for the operator's log; nil if it went well.
    package let failure: String?

    package init(version: UInt64, credential: Credential?, failure: String?) {
        self.version = version
        self.credential = credential
        self.failure = failure
    }
}
