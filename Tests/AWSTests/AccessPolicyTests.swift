import AWS
import Foundation
import Identity
import Testing

/// A document as AWS reads it.
private struct Document: Decodable {
    struct Statement: Decodable {
        var sid: String
        var effect: String
        var actions: [String]
        var resource: [String]
        var condition: [String: [String: [String]]]?

        enum CodingKeys: String, CodingKey {
            case sid = "Sid"
            case effect = "Effect"
            case action = "Action"
            case resource = "Resource"
            case condition = "Condition"
        }

        init(from decoder: any Decoder) throws {
            let container = try decoder.container(keyedBy: CodingKeys.self)
            sid = try container.decode(String.self, forKey: .sid)
            effect = try container.decode(String.self, forKey: .effect)
            let one = try? container.decode(String.self, forKey: .action)
            actions = try one.map { [$0] } ?? container.decode([String].self, forKey: .action)
            resource = try container.decode([String].self, forKey: .resource)
            condition = try container.decodeIfPresent(
                [String: [String: [String]]].self, forKey: .condition)
        }

        var action: String { actions.joined(separator: " ") }
    }

    var version: String
    var statement: [Statement]

    enum CodingKeys: String, CodingKey {
        case version = "Version"
        case statement = "Statement"
    }
}

@Suite struct AccessPolicyTests {
    private static let account = "123456789012"

    private func scope(region: String? = "us-east-1", keys: [String] = []) -> AccessPolicy.Scope {
        var scope = AccessPolicy.Scope()
        scope.account = Self.account
        scope.region = region
        scope.keys = keys
        return scope
    }

    private func iam(
        _ cache: String, _ service: IAMSource.Service = .elastiCache, serverless: Bool = false,
        region: String? = nil
    ) -> CredentialSource {
        var source = IAMSource(cacheName: cache)
        source.service = service
        source.isServerless = serverless
        source.region = region
        return .iam(source)
    }

    private func secret(_ id: String, region: String? = nil) -> CredentialSource {
        var source = SecretsManagerSource(secretID: id)
        source.region = region
        return .secretsManager(source)
    }

    private func statements(
        _ users: [(String, CredentialSource)], _ scope: AccessPolicy.Scope
    ) throws -> [Document.Statement] {
        try statements(of: AccessPolicy(users.map { (name: $0.0, source: $0.1) }, in: scope))
    }

    private func statements(of policy: AccessPolicy) throws -> [Document.Statement] {
        let document = try JSONDecoder().decode(Document.self, from: Data(policy.json.utf8))
        #expect(document.version == "2012-10-17")
        #expect(document.statement.allSatisfy { $0.effect == "Allow" && !$0.resource.isEmpty })
        return document.statement
    }

    @Test func `a token takes Connect on the cache and on the user, in lower case`() throws {
        let prefix = "arn:aws:elasticache:us-east-1:\(Self.account)"
        let node = try statements([("App", iam("My-Cache"))], scope())
        #expect(node.map(\.action) == ["elasticache:Connect"])
        #expect(
            node[0].resource == ["\(prefix):replicationgroup:my-cache", "\(prefix):user:app"])
        let serverless = try statements([("app", iam("my-cache", serverless: true))], scope())
        #expect(
            serverless[0].resource == ["\(prefix):serverlesscache:my-cache", "\(prefix):user:app"])
        let cluster = try statements([("app", iam("my-cluster", .memoryDB))], scope())
        #expect(cluster.map(\.action) == ["memorydb:Connect"])
        let memoryDB = "arn:aws:memorydb:us-east-1:\(Self.account)"
        #expect(cluster[0].resource == ["\(memoryDB):cluster/my-cluster", "\(memoryDB):user/app"])
        #expect(node[0].condition == nil && cluster[0].condition == nil)
    }

    @Test(arguments: [
        ("us-east-1", "aws"), ("eu-central-1", "aws"), ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"), ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"), ("eu-isoe-west-1", "aws-iso-e"),
        ("us-isof-south-1", "aws-iso-f"), ("eusc-de-east-1", "aws-eusc"),
    ])
    func `a region's resources are in its partition`(region: String, partition: String) throws {
        let found = try statements([("app", iam("my-cache", region: region))], scope())
        #expect(
            found[0].resource.allSatisfy { $0.hasPrefix("arn:\(partition):elasticache:\(region):") }
        )
    }

    @Test func `a secret's own end is kept, and the end of a name is any`() throws {
        let prefix = "arn:aws:secretsmanager:eu-west-1:\(Self.account):secret:"
        for (id, wanted) in [
            ("production/cache", prefix + "production/cache-??????"),
            ("ends-like-AbCd12", prefix + "ends-like-AbCd12-??????"),
            (prefix + "cache-AbCd12", prefix + "cache-AbCd12"),
            (prefix + "cache", prefix + "cache-??????"),
            (
                "arn:aws-cn:secretsmanager:cn-north-1:999999999999:secret:a-AbCd12",
                "arn:aws-cn:secretsmanager:cn-north-1:999999999999:secret:a-AbCd12"
            ),
        ] {
            let found = try statements([("app", secret(id, region: "eu-west-1"))], scope())
            #expect(found.map(\.action) == ["secretsmanager:GetSecretValue"])
            #expect(found[0].resource == [wanted])
        }
    }

    @Test func `a key may be used for the secrets alone, and only if one is given`() throws {
        let key = "arn:aws:kms:us-east-1:\(Self.account):key/1234"
        let users = [("a", secret("one")), ("b", secret("two", region: "cn-north-1"))]
        #expect(try statements(users, scope()).count == 1)
        #expect(try statements([("a", iam("my-cache"))], scope(keys: [key])).count == 1)
        let found = try statements(users, scope(keys: [key]))
        #expect(found.map(\.sid) == ["ReadSecrets", "DecryptSecrets"])
        #expect(found[1].action == "kms:Decrypt" && found[1].resource == [key])
        #expect(
            found[1].condition == [
                "StringEquals": [
                    "kms:ViaService": [
                        "secretsmanager.cn-north-1.amazonaws.com.cn",
                        "secretsmanager.us-east-1.amazonaws.com",
                    ]
                ],
                "StringLike": ["kms:EncryptionContext:SecretARN": found[0].resource],
            ])
    }

    @Test func `each resource is named once and everything is in one document`() throws {
        let users = [
            ("app", iam("my-cache")), ("reports", iam("my-cache")), ("app", iam("other")),
            ("app", iam("my-cluster", .memoryDB)), ("app", secret("one")),
            ("app", .passwordFile(path: "/x")), ("app", .passwordEnvironment(variable: "X")),
        ]
        let found = try statements(users, scope())
        #expect(found.map(\.sid) == ["ElastiCacheConnect", "MemoryDBConnect", "ReadSecrets"])
        let names = found[0].resource.map {
            $0.split(separator: ":").suffix(2).joined(separator: ":")
        }
        #expect(
            names == [
                "replicationgroup:my-cache", "replicationgroup:other", "user:app", "user:reports",
            ])
    }

    @Test func `what is not known has a placeholder`() {
        let policy = AccessPolicy([("app", iam("my-cache"))], in: AccessPolicy.Scope())
        #expect(policy.json.contains("\"arn:aws:elasticache:<REGION>:<ACCOUNT-ID>:user:app\""))
        #expect(policy.contains(AccessPolicy.accountPlaceholder))
        #expect(policy.contains(AccessPolicy.regionPlaceholder))
        #expect(!policy.readsSecrets)
        let whole = AccessPolicy([("app", iam("my-cache"))], in: scope())
        #expect(!whole.contains(AccessPolicy.accountPlaceholder))
        #expect(!whole.contains(AccessPolicy.regionPlaceholder))
    }

    @Test func `a name cannot mean other names`() throws {
        let found = try statements([("a*b?c$d\"", iam("my-cache"))], scope())
        #expect(found[0].resource[1].hasSuffix(":user:a${*}b${?}c${$}d\""))
    }

    @Test func `a rotation takes the steps on the secret and the change of its user`() throws {
        let id = "arn:aws:secretsmanager:eu-west-1:\(Self.account):secret:a-AbC123"
        let users = [
            AccessPolicy.ChangedUser(name: "App", source: secret(id), service: .elastiCache),
            AccessPolicy.ChangedUser(
                name: "own", source: secret("own", region: "us-east-1"), service: nil),
            AccessPolicy.ChangedUser(name: "token", source: iam("c"), service: .elastiCache),
        ]
        let found = try statements(
            of: AccessPolicy(.rotation, of: users, in: scope(keys: ["arn:key"])))
        #expect(found.map(\.sid) == ["ElastiCacheUsers", "RotateSecrets", "UseKeysOfSecrets"])
        #expect(found[0].actions == ["elasticache:DescribeUsers", "elasticache:ModifyUser"])
        #expect(found[0].resource == ["arn:aws:elasticache:eu-west-1:\(Self.account):user:app"])
        #expect(
            found[1].actions
                == [
                    "DescribeSecret", "GetSecretValue", "PutSecretValue",
                    "UpdateSecretVersionStage",
                ]
                .map { "secretsmanager:\($0)" })
        #expect(
            found[1].resource
                == [id, "arn:aws:secretsmanager:us-east-1:\(Self.account):secret:own-??????"])
        #expect(found[2].actions == ["kms:Decrypt", "kms:GenerateDataKey"])
        #expect(
            found[2].condition?["StringLike"] == [
                "kms:EncryptionContext:SecretARN": found[1].resource
            ])
    }

    @Test func `declared users take what makes and changes them, and their secrets to be read`()
        throws
    {
        let users = [
            AccessPolicy.ChangedUser(name: "app", source: iam("c", .memoryDB), service: .memoryDB),
            AccessPolicy.ChangedUser(name: "own", source: secret("own"), service: nil),
        ]
        let found = try statements(of: AccessPolicy(.users, of: users, in: scope()))
        #expect(found.map(\.sid) == ["MemoryDBUsers", "ReadSecrets"])
        #expect(
            found[0].actions
                == ["memorydb:DescribeUsers", "memorydb:CreateUser", "memorydb:UpdateUser"])
        #expect(found[0].resource == ["arn:aws:memorydb:us-east-1:\(Self.account):user/app"])
        #expect(found[1].actions == ["secretsmanager:GetSecretValue"])
    }

    @Test func `nothing of AWS's needs nothing`() {
        let users = [(name: "app", source: CredentialSource.passwordFile(path: "/x"))]
        #expect(AccessPolicy(users, in: scope()).isEmpty)
    }
}
