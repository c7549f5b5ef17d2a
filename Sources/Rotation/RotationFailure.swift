// What keeps a rotation from going on, as a value whose text is for the operator.

package import AWS

/// Why a step ended without its end. Every step can be done again: what it did before is found then.
package struct RotationFailure: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: String, Sendable, CaseIterable {
        /// The secret, the user or a server is not there, or could not be reached.
        case unavailable
        /// The user is being changed; it can be changed again later.
        case busy
        /// The time was over before the end.
        case timedOut
        /// AWS or the server does not allow it, or the login was refused.
        case denied
        /// The secret, the user or a setting is not what it must be.
        case unusable
        /// Another rotation of the secret took over.
        case superseded
    }

    package let kind: Kind
    package let reason: String
    /// What to do about it.
    package let advice: String?

    package init(_ kind: Kind, _ reason: String, advice: String? = nil) {
        self.kind = kind
        self.reason = reason
        self.advice = advice
    }

    /// Something was waited for, and the time for it is over.
    init(timedOut what: String) {
        self.init(
            .timedOut, "\(what), and the time to wait for it is over",
            advice: "do it again: it goes on where it stopped")
    }

    package var description: String { advice.map { "\(reason): \($0)" } ?? reason }

    /// What AWS did not give.
    package init(_ failure: AWSFailure) {
        let kind: Kind =
            switch failure.kind {
            case .unavailable, .throttled, .clockSkew, .cancelled: .unavailable
            case .refused:
                switch failure.code {
                case _ where failure.isBusyUser: .busy
                case "ResourceNotFoundException": .unavailable
                case _ where failure.isMissingUser: .unavailable
                case "ResourceExistsException": .superseded
                // No answer of AWS: what was to be asked cannot be, or with no credentials.
                case nil: .unusable
                case let code? where code.hasPrefix("InvalidParameter"): .unusable
                default: .denied
                }
            }
        self.init(kind, failure.reason)
    }
}
