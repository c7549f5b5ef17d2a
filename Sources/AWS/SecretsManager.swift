// GetSecretValue, the one operation of Secrets Manager that a reader needs. What changes secrets is in
// SecretVersions.swift.

import FoundationEssentials
package import Identity

/// Which of a secret's versions is wanted, by its staging label.
package enum SecretStage: String, CaseIterable, Sendable {
    /// The one in use.
    case current = "AWSCURRENT"
    /// One that a rotation has made and not finished with: the server may know it already.
    case pending = "AWSPENDING"
    /// The one before: the server may not know the current one yet.
    case previous = "AWSPREVIOUS"
}

/// One version of a secret.
package struct SecretVersion: Sendable, Equatable {
    package let id: String
    /// What was stored: text or bytes.
    package let value: Secret

    package init(id: String, value: Secret) {
        self.id = id
        self.value = value
    }
}

extension AWSClient {
    /// The version that has a label; nil if none has it.
    ///
    /// The label is always sent: with AWS the answer is the same without it, and not with every
    /// stand-in.
    ///
    /// - Parameter version: that this one must be; if another one has the label, AWS refuses.
    package func secretVersion(
        _ stage: SecretStage, version: String? = nil, of id: String, region: String,
        signedBy credential: AWSCredential
    ) throws(AWSFailure) -> SecretVersion? {
        let what = "GetSecretValue of \(id), \(stage.rawValue)"
        var members = [
            (name: "SecretId", value: Secret(id.utf8)),
            (name: "VersionStage", value: Secret(stage.rawValue.utf8)),
        ]
        if let version { members.append(("VersionId", Secret(version.utf8))) }
        var body = WipedBuffer(capacity: 512)
        body.appendJSON(members)
        let answered: JSONObject?
        do throws(AWSFailure) {
            answered = try json(
                .secretsManager, "secretsmanager.GetSecretValue", what, body: body.secret(),
                region: region, credential: credential)
        } catch {
            // The same name for a secret, a version and a label that is not there.
            if error.code == "ResourceNotFoundException", stage != .current { return nil }
            throw error
        }
        guard let answer = answered, let version = answer.text("VersionId") else {
            throw AWSFailure(
                .unavailable, "\(what): wanted JSON with a version, got something else")
        }
        if let text = answer.text("SecretString") {
            return SecretVersion(id: version, value: Secret(text.utf8))
        }
        if let text = answer.text("SecretBinary"), let data = Data(base64Encoded: text) {
            return SecretVersion(id: version, value: Secret(data))
        }
        // A rotation has made the version and put nothing into it yet.
        if stage == .pending { return nil }
        throw AWSFailure(.unavailable, "\(what): the version has no value yet")
    }
}

/// What a secret's text says about a login.
package struct SecretLogin: Sendable {
    /// nil: the text does not say.
    package let userName: String?
    package let password: Secret

    /// A plain text is the password itself. A JSON object has it under `passwordKey`, and perhaps
    /// the user's name under `userNameKey`; both are taken from this one text, so that they belong
    /// together.
    ///
    /// - Throws: `Unusable`; nothing of the text is in it.
    package init(_ value: Secret, userNameKey: String, passwordKey: String) throws(Unusable) {
        guard Self.isObject(value) else {
            userName = nil
            password = value.withoutFinalLineBreak()
            try Self.check(password)
            return
        }
        guard let object = JSONObject(value) else {
            throw Unusable(reason: "wanted a plain text or a JSON object, got a broken one")
        }
        guard case .text(let text)? = object[passwordKey] else {
            throw Unusable(
                reason: "wanted a text under the key \(passwordKey), got "
                    + (object[passwordKey] == nil ? "none" : "something else"))
        }
        password = Secret(text.utf8)
        try Self.check(password)
        switch object[userNameKey] {
        case .text(let name)? where !name.isEmpty: userName = name
        case nil: userName = nil
        default:
            throw Unusable(reason: "wanted a text under the key \(userNameKey), got something else")
        }
        if let userName, userName.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7f }) {
            throw Unusable(
                reason: "wanted a user's name without blanks under the key \(userNameKey)")
        }
    }

    /// Whether it is meant to be a JSON object.
    static func isObject(_ value: Secret) -> Bool {
        value.withBytes { bytes in
            bytes.first { $0 != 0x20 && $0 != 0x09 && $0 != 0x0a && $0 != 0x0d }
                == UInt8(ascii: "{")
        }
    }

    private static func check(_ password: Secret) throws(Unusable) {
        guard password.count > 0 else { throw Unusable(reason: "the password is empty") }
    }

    /// A secret that is there and not what it should be, in words for the operator.
    package struct Unusable: Error, Equatable {
        package let reason: String
    }
}
