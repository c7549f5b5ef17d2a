// What AWS must allow, as the document that an administrator puts there: each action on nothing but
// the resources that it is needed for.
//
//   iam                elasticache:Connect   on the cache and on the user
//                      memorydb:Connect      on the cluster and on the user
//   secrets_manager    secretsmanager:GetSecretValue on the secret
//                      kms:Decrypt           on its key, for that secret only, if the key is one's own
//
// Whoever changes users and their secrets needs other permissions, and a role of its own:
//
//   rotate             the four of the steps on each secret; DescribeUsers, and ModifyUser or UpdateUser,
//                      on its user, if that is one of AWS's
//   users apply        those and CreateUser on each declared user; GetSecretValue on its secret
//
// Permissions of one role add up: with two users of two caches in one document each user is allowed at
// each cache, and only the caches' user groups keep them apart. Whoever minds asks for one document
// per user and gives each a role.
//
// Source: Service Authorization Reference, ElastiCache, MemoryDB, Secrets Manager; "Permissions policy
// examples for AWS Secrets Manager"; "IAM policy elements: Variables" for the characters that are
// written `${*}`.

import FoundationEssentials
package import Identity

/// A policy document.
package struct AccessPolicy: Sendable {
    /// Where something is not known, this stands in its place.
    package static let accountPlaceholder = "<ACCOUNT-ID>"
    package static let regionPlaceholder = "<REGION>"

    /// What the document is for.
    package struct Scope: Sendable {
        /// The account of caches and secrets; nil: a placeholder.
        package var account: String?
        /// Where a source has no region of its own; nil: a placeholder.
        package var region: String?
        /// ARNs of the keys that secrets are encrypted with, if they are one's own.
        package var keys: [String] = []

        package init() {}
    }

    /// In the order of the drawing above, and only those that are needed.
    private var statements: [Statement] = []

    private struct Statement: Encodable {
        var sid: String
        var actions: [String]
        var resource: Set<String> = []
        var condition: [String: [String: [String]]]?

        enum CodingKeys: String, CodingKey {
            case sid = "Sid"
            case effect = "Effect"
            case action = "Action"
            case resource = "Resource"
            case condition = "Condition"
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(sid, forKey: .sid)
            try container.encode("Allow", forKey: .effect)
            if actions.count == 1 {
                try container.encode(actions[0], forKey: .action)
            } else {
                try container.encode(actions, forKey: .action)
            }
            try container.encode(resource.sorted(), forKey: .resource)
            try container.encodeIfPresent(condition, forKey: .condition)
        }
    }

    private struct Document: Encodable {
        var version = "2012-10-17"
        var statement: [Statement]

        enum CodingKeys: String, CodingKey {
            case version = "Version"
            case statement = "Statement"
        }
    }

    /// - Parameter users: the ACL users' names and sources; those that need nothing of AWS are left
    ///   out.
    package init(_ users: [(name: String, source: CredentialSource)], in scope: Scope) {
        var elastiCache = Statement(sid: "ElastiCacheConnect", actions: ["elasticache:Connect"])
        var memoryDB = Statement(sid: "MemoryDBConnect", actions: ["memorydb:Connect"])
        var secrets = SecretsStatement()
        for (name, source) in users {
            switch source {
            case .passwordFile, .passwordEnvironment: break
            case .iam(let iam):
                let cache = Self.literal(iam.cacheName.lowercased())
                let user = Self.arn(ofUser: name, of: iam.service, iam.region, scope)
                let arn = Self.arnPrefix(iam.service.rawValue, iam.region, scope)
                switch iam.service {
                case .elastiCache:
                    let kind = iam.isServerless ? "serverlesscache" : "replicationgroup"
                    elastiCache.resource.formUnion(["\(arn):\(kind):\(cache)", user])
                case .memoryDB:
                    memoryDB.resource.formUnion(["\(arn):cluster/\(cache)", user])
                }
            case .secretsManager(let secret):
                secrets.add(secret, scope)
            }
        }
        statements =
            [elastiCache, memoryDB].filter { !$0.resource.isEmpty } + secrets.statements(scope)
    }

    /// What changes users and secrets.
    package enum Change: Sendable {
        /// `rotate`, by hand or as a function.
        case rotation
        /// `users apply`.
        case users
    }

    /// A user that is to be changed.
    package struct ChangedUser: Sendable {
        package let name: String
        package let source: CredentialSource
        /// nil: a server of one's own has it.
        package let service: IAMSource.Service?

        package init(name: String, source: CredentialSource, service: IAMSource.Service?) {
            self.name = name
            self.source = source
            self.service = service
        }
    }

    /// - Parameter users: of a rotation those without a secret are left out.
    package init(_ change: Change, of users: [ChangedUser], in scope: Scope) {
        let actions: (elastiCache: [String], memoryDB: [String]) =
            switch change {
            case .rotation: (["DescribeUsers", "ModifyUser"], ["DescribeUsers", "UpdateUser"])
            case .users:
                (
                    ["DescribeUsers", "CreateUser", "ModifyUser"],
                    ["DescribeUsers", "CreateUser", "UpdateUser"]
                )
            }
        var elastiCache = Statement(
            sid: "ElastiCacheUsers", actions: actions.elastiCache.map { "elasticache:\($0)" })
        var memoryDB = Statement(
            sid: "MemoryDBUsers", actions: actions.memoryDB.map { "memorydb:\($0)" })
        var secrets = SecretsStatement(isChanged: change == .rotation)
        for user in users {
            var region: String?
            switch user.source {
            case .secretsManager(let secret):
                secrets.add(secret, scope)
                region = Self.region(of: secret, scope)
            case .iam(let iam): region = iam.region
            case .passwordFile, .passwordEnvironment: break
            }
            if change == .rotation {
                guard case .secretsManager = user.source else { continue }
            }
            guard let service = user.service else { continue }
            let arn = Self.arn(ofUser: user.name, of: service, region, scope)
            switch service {
            case .elastiCache: elastiCache.resource.insert(arn)
            case .memoryDB: memoryDB.resource.insert(arn)
            }
        }
        statements =
            [elastiCache, memoryDB].filter { !$0.resource.isEmpty } + secrets.statements(scope)
    }

    /// What is done with secrets, and with their keys.
    private struct SecretsStatement {
        var isChanged = false
        private var resource: Set<String> = []
        private var regions: Set<String> = []

        init(isChanged: Bool = false) { self.isChanged = isChanged }

        mutating func add(_ secret: SecretsManagerSource, _ scope: Scope) {
            resource.insert(AccessPolicy.arn(of: secret, scope))
            regions.insert(AccessPolicy.region(of: secret, scope))
        }

        func statements(_ scope: Scope) -> [Statement] {
            guard !resource.isEmpty else { return [] }
            let actions =
                isChanged
                ? [
                    "DescribeSecret", "GetSecretValue", "PutSecretValue",
                    "UpdateSecretVersionStage",
                ]
                : ["GetSecretValue"]
            let secrets = Statement(
                sid: isChanged ? "RotateSecrets" : "ReadSecrets",
                actions: actions.map { "secretsmanager:\($0)" }, resource: resource)
            guard !scope.keys.isEmpty else { return [secrets] }
            let services = regions.sorted().map {
                "secretsmanager.\($0).\(Partition(region: $0).dnsSuffix)"
            }
            return [
                secrets,
                Statement(
                    sid: isChanged ? "UseKeysOfSecrets" : "DecryptSecrets",
                    actions: isChanged ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"],
                    resource: Set(scope.keys),
                    condition: [
                        "StringEquals": ["kms:ViaService": services],
                        "StringLike": ["kms:EncryptionContext:SecretARN": resource.sorted()],
                    ]),
            ]
        }
    }

    /// Whether nothing must be allowed.
    package var isEmpty: Bool { statements.isEmpty }
    /// Whether it reads secrets, so that a key may be needed.
    package var readsSecrets: Bool { statements.contains { $0.sid.hasSuffix("Secrets") } }
    /// Whether this stands somewhere in a resource.
    package func contains(_ placeholder: String) -> Bool {
        statements.contains { $0.resource.contains { $0.contains(placeholder) } }
    }

    /// The document, with sorted keys and a line break at its end.
    package var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(Document(statement: statements)) else {
            preconditionFailure("texts can be encoded")
        }
        return String(decoding: data, as: UTF8.self) + "\n"
    }

    // MARK: Names

    private static func arnPrefix(_ service: String, _ region: String?, _ scope: Scope) -> String {
        let region = region ?? scope.region ?? regionPlaceholder
        let account = scope.account ?? accountPlaceholder
        return "arn:\(Partition(region: region).name):\(service):\(region):\(account)"
    }

    /// AWS keeps names in lower case.
    private static func arn(
        ofUser name: String, of service: IAMSource.Service, _ region: String?, _ scope: Scope
    ) -> String {
        let arn = arnPrefix(service.rawValue, region, scope)
        let user = literal(name.lowercased())
        return service == .elastiCache ? "\(arn):user:\(user)" : "\(arn):user/\(user)"
    }

    /// The sixth part of an ARN is the resource, and the fourth the region.
    private static func region(of secret: SecretsManagerSource, _ scope: Scope) -> String {
        let parts = secret.secretID.split(separator: ":", omittingEmptySubsequences: false)
        if parts.first == "arn", parts.count > 3 { return String(parts[3]) }
        return secret.region ?? scope.region ?? regionPlaceholder
    }

    /// AWS puts a hyphen and six characters behind the name, which the name alone does not tell.
    private static func arn(of secret: SecretsManagerSource, _ scope: Scope) -> String {
        let id = literal(secret.secretID)
        let isARN = secret.secretID.hasPrefix("arn:")
        let whole = isARN ? id : arnPrefix("secretsmanager", secret.region, scope) + ":secret:\(id)"
        let end = whole.utf8.suffix(7)
        let hasSuffix =
            end.first == UInt8(ascii: "-")
            && end.dropFirst().allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte)
                    || (0x61...0x7a).contains(byte)
            }
        return isARN && hasSuffix ? whole : whole + "-??????"
    }

    /// A name whose characters mean themselves in a resource.
    private static func literal(_ name: String) -> String {
        name.map { "*?$".contains($0) ? "${\($0)}" : String($0) }.joined()
    }
}
