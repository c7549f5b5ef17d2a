// The steps of a rotation, how far one is, and what is said of each.

package import AWS

/// One step; the first four are Secrets Manager's, with its names.
package enum RotationStep: String, CaseIterable, Sendable {
    case createSecret
    case setSecret
    case testSecret
    case finishSecret
    /// Our own: the password before is no longer good.
    case dropPrevious

    /// Those of a rotation as Secrets Manager has it.
    package static let rotation: [RotationStep] = [
        .createSecret, .setSecret, .testSecret, .finishSecret,
    ]
}

/// How far a rotation is, told by the labels of its version.
package enum RotationPhase: Sendable, Equatable {
    /// There is no version of its id.
    case notBegun
    /// Its version has AWSPENDING, and perhaps a value.
    case pending
    /// Its version has AWSCURRENT.
    case finished
    /// Its version has neither, since another rotation took over.
    case abandoned

    /// - Parameter token: the rotation's, which is the id of its version.
    package init(of token: String, in secret: SecretDescription) {
        if secret.has(token, .current) {
            self = .finished
        } else if secret.has(token, .pending) {
            self = .pending
        } else {
            self = secret.stages[token] == nil ? .notBegun : .abandoned
        }
    }
}

/// Something that happened in a step, in words without a secret.
package struct RotationNote: Sendable, Equatable {
    package enum Kind: String, Sendable {
        /// Something was changed, or tried out.
        case done
        /// It was as it should be already.
        case unchanged
        /// What would be done.
        case planned
        /// Something takes its time.
        case waiting
        /// It works; think about it.
        case warning
    }

    package let step: RotationStep
    package let kind: Kind
    package let message: String

    package init(_ step: RotationStep, _ kind: Kind, _ message: String) {
        self.step = step
        self.kind = kind
        self.message = message
    }
}
