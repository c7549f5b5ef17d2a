// Where the secret is: what a rotation asks of Secrets Manager, and Secrets Manager.

package import AWS
package import Identity

/// Keeps the versions of one secret.
package protocol SecretStore {
    /// The secret's name or ARN, for messages.
    var name: String { get }

    /// Which version has which label.
    func describe() throws(RotationFailure) -> SecretDescription

    /// The value of a version that has this label; nil if it has none yet, or no version the label.
    ///
    /// - Parameter version: must have the label.
    func version(_ stage: SecretStage, version: String) throws(RotationFailure) -> SecretVersion?

    /// Adds a version with the label AWSPENDING and the id `token`; the same again changes nothing.
    func putPending(_ value: Secret, token: String) throws(RotationFailure)

    /// Moves AWSCURRENT to `version`.
    func makeCurrent(_ version: String, insteadOf holder: String) throws(RotationFailure)
}

/// One secret in Secrets Manager.
package struct SecretsManagerStore: SecretStore {
    package let name: String
    private let region: String
    private let access: AWSAccess
    private let rotationToken: Secret?

    /// - Parameters:
    ///   - id: the secret's name or ARN.
    ///   - rotationToken: what Secrets Manager gave with the request, if it did.
    package init(_ id: String, region: String, access: AWSAccess, rotationToken: Secret? = nil) {
        name = id
        self.region = region
        self.access = access
        self.rotationToken = rotationToken
    }

    package func describe() throws(RotationFailure) -> SecretDescription {
        try access { (client, credential) throws(AWSFailure) in
            try client.describeSecret(name, region: region, signedBy: credential)
        }
    }

    package func version(
        _ stage: SecretStage, version: String
    ) throws(RotationFailure) -> SecretVersion? {
        try access { (client, credential) throws(AWSFailure) in
            try client.secretVersion(
                stage, version: version, of: name, region: region, signedBy: credential)
        }
    }

    package func putPending(_ value: Secret, token: String) throws(RotationFailure) {
        try access { (client, credential) throws(AWSFailure) in
            try client.putPendingSecret(
                value, token: token, rotationToken: rotationToken, of: name, region: region,
                signedBy: credential)
        }
    }

    package func makeCurrent(
        _ version: String, insteadOf holder: String
    ) throws(RotationFailure) {
        try access { (client, credential) throws(AWSFailure) in
            try client.makeCurrent(
                version: version, insteadOf: holder, of: name, region: region,
                signedBy: credential)
        }
    }
}
