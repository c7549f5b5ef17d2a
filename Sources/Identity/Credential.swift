// What the proxy logs in with upstream, and how the control plane hands it to the data plane.

/// A user name and the secret that goes with it, taken from one source at one moment.
package struct Credential: Sendable, Equatable {
    /// The ACL user's name as AUTH wants it.
    package let userName: String
    package let secret: Secret

    package init(userName: String, secret: Secret) {
        self.userName = userName
        self.secret = secret
    }
}

extension Credential: CustomStringConvertible {
    package var description: String { "\(userName) <secret>" }
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
