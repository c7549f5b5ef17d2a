// What Secrets Manager asks of a rotation function.

import AWS
package import Identity

/// One invocation's event: `{"Step":…,"SecretId":…,"ClientRequestToken":…,"RotationToken":…}`.
package struct RotationRequest: Sendable, Equatable {
    package let step: RotationStep
    /// The secret's ARN.
    package let secretID: String
    /// The id of the version to rotate to.
    package let token: String
    /// Goes back to Secrets Manager with the new value, where a role of another account rotates.
    package let rotationToken: Secret?

    /// Throws `unusable`; what was got is in it, as far as it is no secret.
    package init(event: Secret) throws(RotationFailure) {
        guard let texts = jsonTexts(of: event) else {
            throw RotationFailure(
                .unusable,
                "event: wanted a JSON object with Step, SecretId and ClientRequestToken,"
                    + " got something else",
                advice: "let Secrets Manager invoke the function")
        }
        guard let secretID = texts["SecretId"], let token = texts["ClientRequestToken"] else {
            throw RotationFailure(
                .unusable, "event: wanted SecretId and ClientRequestToken, got not both")
        }
        guard let name = texts["Step"], let step = RotationStep(rawValue: name),
            RotationStep.rotation.contains(step)
        else {
            let names = RotationStep.rotation.map(\.rawValue).joined(separator: ", ")
            throw RotationFailure(
                .unusable,
                "event: wanted a Step of \(names), got "
                    + (texts["Step"].map { "\"\($0.prefix(40))\"" } ?? "none"))
        }
        self.step = step
        self.secretID = secretID
        self.token = token
        rotationToken = texts["RotationToken"].map { Secret($0.utf8) }
    }
}
