// What requests to AWS are signed with.

package import Identity

/// An access key with its secret, and for temporary ones a session token and an expiry: three values
/// that belong together and are only ever replaced together.
package struct AWSCredential: Sendable, Equatable {
    /// Names the key; stands in each signed request, and is no secret.
    package let accessKeyID: String
    package let secretAccessKey: Secret
    /// nil for long-lived keys. An empty one counts as none.
    package let sessionToken: Secret?
    /// When AWS stops to accept it, on AWS's clock; nil if never.
    package var expiry: WallTime?
    /// Where it comes from, in words for the operator.
    package let source: String
    /// It stays in use when the source cannot give a newer one, past its expiry if need be:
    /// AWS asks that of instance metadata's credentials and of no others.
    package let isStaticallyStable: Bool

    package init(
        accessKeyID: String, secretAccessKey: Secret, sessionToken: Secret? = nil,
        expiry: WallTime? = nil, source: String, isStaticallyStable: Bool = false
    ) {
        self.accessKeyID = accessKeyID
        self.secretAccessKey = secretAccessKey
        self.sessionToken = sessionToken.flatMap { $0.count > 0 ? $0 : nil }
        self.expiry = expiry
        self.source = source
        self.isStaticallyStable = isStaticallyStable
    }
}

extension AWSCredential: CustomStringConvertible {
    package var description: String {
        let end = expiry.map { ", expires \($0.iso8601)" } ?? ", does not expire"
        return "\(accessKeyID) from \(source)\(end)"
    }
}
