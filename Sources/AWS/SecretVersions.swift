// What a rotation does with a secret's versions: looks at their labels, adds one, moves a label.
//
//   DescribeSecret             which version has which labels; never a value
//   PutSecretValue             a new version, labelled AWSPENDING
//   UpdateSecretVersionStage   AWSCURRENT goes to it, and AWSPREVIOUS to the one before

package import Identity

/// What is known of a secret without its values.
package struct SecretDescription: Sendable, Equatable {
    package var arn: String
    package var name: String
    /// Whether Secrets Manager itself has it rotated.
    package var isRotationEnabled: Bool
    /// The labels of each version that has any.
    package var stages: [String: Set<String>]

    package init(
        arn: String, name: String, isRotationEnabled: Bool, stages: [String: Set<String>]
    ) {
        self.arn = arn
        self.name = name
        self.isRotationEnabled = isRotationEnabled
        self.stages = stages
    }

    /// The version that has a label.
    package func holder(of stage: SecretStage) -> String? {
        stages.first { $0.value.contains(stage.rawValue) }?.key
    }

    /// Whether a version has a label.
    package func has(_ version: String, _ stage: SecretStage) -> Bool {
        stages[version]?.contains(stage.rawValue) ?? false
    }
}

extension AWSClient {
    /// The most bytes that a secret's value may have. Source: Secrets Manager, PutSecretValue.
    package static let secretLimit = 65_536

    /// Labels of a secret's versions. Throws `refused` with `ResourceNotFoundException` if there is
    /// no such secret.
    package func describeSecret(
        _ id: String, region: String, signedBy credential: AWSCredential
    ) throws(AWSFailure) -> SecretDescription {
        let answer = try secretsManager(
            "DescribeSecret", of: id, [], region: region, credential: credential)
        guard let answer, let arn = answer.text("ARN"), let name = answer.text("Name") else {
            throw AWSFailure(
                .unavailable,
                "DescribeSecret of \(id): wanted JSON with ARN and Name, got something"
                    + " else")
        }
        // What has no value is left out.
        var stages: [String: Set<String>] = [:]
        if case .object(let versions)? = answer["VersionIdsToStages"] {
            for (version, labels) in versions {
                guard case .list(let labels) = labels else { continue }
                stages[version] = Set(
                    labels.compactMap { if case .text(let label) = $0 { label } else { nil } })
            }
        }
        return SecretDescription(
            arn: arn, name: name, isRotationEnabled: answer["RotationEnabled"] == .flag(true),
            stages: stages)
    }

    /// Adds a version with the label AWSPENDING, which another version loses. Its id is `token`. The
    /// same value again changes nothing; another one is refused as `ResourceExistsException`.
    ///
    /// - Parameters:
    ///   - token: 32 to 64 characters.
    ///   - rotationToken: what Secrets Manager gave a rotation function that acts for somebody else.
    package func putPendingSecret(
        _ value: Secret, token: String, rotationToken: Secret?, of id: String, region: String,
        signedBy credential: AWSCredential
    ) throws(AWSFailure) {
        var members = [(name: "ClientRequestToken", value: Secret(token.utf8))]
        if let rotationToken { members.append(("RotationToken", rotationToken)) }
        members.append(("SecretString", value))
        _ = try secretsManager(
            "PutSecretValue", of: id, members,
            lists: [("VersionStages", [SecretStage.pending.rawValue])], region: region,
            credential: credential)
    }

    /// Moves AWSCURRENT; AWSPREVIOUS follows to the version that loses it.
    package func makeCurrent(
        version: String, insteadOf holder: String, of id: String, region: String,
        signedBy credential: AWSCredential
    ) throws(AWSFailure) {
        _ = try secretsManager(
            "UpdateSecretVersionStage", of: id,
            [
                ("VersionStage", Secret(SecretStage.current.rawValue.utf8)),
                ("MoveToVersionId", Secret(version.utf8)),
                ("RemoveFromVersionId", Secret(holder.utf8)),
            ], region: region, credential: credential)
    }

    private func secretsManager(
        _ operation: String, of id: String, _ members: [(name: String, value: Secret)],
        lists: [(name: String, texts: [String])] = [], region: String, credential: AWSCredential
    ) throws(AWSFailure) -> JSONObject? {
        var body = WipedBuffer(capacity: 4096)
        body.appendJSON([("SecretId", Secret(id.utf8))] + members, lists: lists)
        return try json(
            .secretsManager, "secretsmanager.\(operation)", "\(operation) of \(id)",
            body: body.secret(), region: region, credential: credential)
    }
}
