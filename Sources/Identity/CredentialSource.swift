/// Where a user's secret comes from: what the configuration says, and what a credential provider
/// is built from. Names a place, never holds a secret, and may be printed.
package enum CredentialSource: Hashable, Sendable {
    /// A file whose content, without one trailing newline, is the password. Re-read as it changes.
    case passwordFile(path: String)
    /// An environment variable, read once before any thread starts and then removed.
    case passwordEnvironment(variable: String)
    /// A token of AWS's IAM, signed anew all the time.
    case iam(IAMSource)
    /// A secret in AWS Secrets Manager, which may rotate.
    case secretsManager(SecretsManagerSource)

    /// Whether it is a token, and no password.
    package var isIAM: Bool {
        if case .iam = self { true } else { false }
    }

    /// Whether AWS is asked for it.
    package var needsAWS: Bool {
        switch self {
        case .passwordFile, .passwordEnvironment: false
        case .iam, .secretsManager: true
        }
    }
}

/// What an IAM token is signed for.
package struct IAMSource: Hashable, Sendable {
    /// Who checks the token; the service's name in the signature.
    package enum Service: String, CaseIterable, Sendable {
        case elastiCache = "elasticache"
        case memoryDB = "memorydb"
    }

    /// The replication group's id, the serverless cache's or the cluster's name.
    package var cacheName: String
    package var service = Service.elastiCache
    package var isServerless = false
    /// nil: the region of this process's AWS settings.
    package var region: String?
    package var life = LoginLife()

    package init(cacheName: String = "") {
        self.cacheName = cacheName
    }
}

/// A secret, and what of it is the password.
package struct SecretsManagerSource: Hashable, Sendable {
    /// Its name or ARN.
    package var secretID: String
    /// nil: the region of this process's AWS settings.
    package var region: String?
    /// In a secret that is a JSON object: where the ACL user's name is. A secret without it, or
    /// that is a plain text, leaves the configured name.
    package var userNameKey = "username"
    /// In a secret that is a JSON object: where the password is.
    package var passwordKey = "password"
    /// How often it is looked at without any reason.
    package var refreshEvery: Duration = .seconds(300)

    package init(secretID: String = "") {
        self.secretID = secretID
    }
}

extension CredentialSource: CustomStringConvertible {
    package var description: String {
        switch self {
        case .passwordFile(let path): "password_file \(path)"
        case .passwordEnvironment(let variable): "password_env \(variable)"
        case .iam(let source):
            "iam (\(source.service.rawValue) \(source.cacheName)"
                + (source.isServerless ? ", serverless" : "")
                + (source.region.map { ", \($0)" } ?? "") + ")"
        case .secretsManager(let source):
            "secrets_manager \(source.secretID)"
                + (source.region.map { " (\($0))" } ?? "")
        }
    }
}
