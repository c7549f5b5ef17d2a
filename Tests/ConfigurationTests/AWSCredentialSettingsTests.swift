// Credentials of AWS: what is read, and what AWS would refuse without a reason.

import Configuration
import Identity
import Testing

private func with(_ credentials: String) -> String {
    good.replacing("{ password_file: /run/secrets/app }", with: credentials)
}

@Suite struct AWSCredentialSettingsTests {
    @Test func `a token is for a node based cache of ElastiCache unless told otherwise`() throws {
        let settings = try load(with("{ iam: { cache_name: My-Cache } }")).settings
        #expect(settings.users[0].credentials == .iam(IAMSource(cacheName: "My-Cache")))
    }

    @Test func `every key of iam is read`() throws {
        let settings = try load(
            with(
                "{ iam: { cache_name: c, service: elasticache, serverless: true, region: eu-west-1,"
                    + " renew_after: 3s, connection_limit: 12s } }")
        ).settings
        var source = IAMSource(cacheName: "c")
        source.isServerless = true
        source.region = "eu-west-1"
        source.life = LoginLife(renewAfter: .seconds(3), limit: .seconds(12))
        #expect(settings.users[0].credentials == .iam(source))
    }

    @Test func `every key of secrets_manager is read`() throws {
        let settings = try load(
            with(
                "{ secrets_manager: { secret_id: a/b, region: eu-west-1, username_key: u,"
                    + " password_key: p, refresh_every: 1m } }")
        ).settings
        var source = SecretsManagerSource(secretID: "a/b")
        source.region = "eu-west-1"
        source.userNameKey = "u"
        source.passwordKey = "p"
        source.refreshEvery = .seconds(60)
        #expect(settings.users[0].credentials == .secretsManager(source))
    }

    @Test func `an ARN says its region`() throws {
        func region(_ more: String) throws -> String? {
            let arn = "arn:aws:secretsmanager:us-gov-west-1:123456789012:secret:a/b-x1y2z3"
            let text = with("{ secrets_manager: { secret_id: \"\(arn)\"\(more) } }")
            guard case .secretsManager(let source) = try load(text).settings.users[0].credentials
            else { return nil }
            return source.region
        }
        #expect(try region("") == "us-gov-west-1")
        #expect(try region(", region: eu-west-1") == "eu-west-1")
    }

    @Test func `an endpoint in place of a cache's name is explained`() {
        let found = problems(
            with("{ iam: { cache_name: master.my-cache.abc123.use1.cache.amazonaws.com } }"))
        #expect(found.count == 1)
        #expect(found[0].hasPrefix("c.yaml:7:39: error: cache_name: wanted the name of a cache"))
        #expect(found[0].contains("looks like an endpoint"))
    }

    @Test func `a token is not sent without TLS`() {
        let text = with("{ iam: { cache_name: c } }")
            .replacing("address: cache", with: "tls: off\n    address: cache")
        let errors = problems(text).filter { $0.contains(" error: ") }
        #expect(errors.count == 1)
        #expect(errors[0].contains("wanted TLS for upstream cache, got tls: off"))
    }

    @Test func `a name that cannot be an IAM user's id is explained`() {
        let text = with("{ iam: { cache_name: c } }")
            .replacing("upstream: cache", with: "upstream: cache\n    user_name: App")
        let found = problems(text)
        #expect(found.count == 1)
        #expect(found[0].contains("wanted a user's name in lower case, got \"App\""))
    }

    @Test func `a login is renewed before its connection ends`() {
        let found = problems(
            with("{ iam: { cache_name: c, renew_after: 12h } }"))
        #expect(found.count == 1)
        #expect(found[0].contains("renew_after: wanted less than connection_limit (12h), got 12h"))
    }

    @Test func `serverless is ElastiCache's`() {
        let found = problems(
            with("{ iam: { cache_name: c, service: memorydb, serverless: true } }"))
        #expect(found.count == 1)
        #expect(found[0].contains("serverless: wanted service elasticache"))
    }

    @Test func `a serverless cache's address wants the word`() {
        let text = with("{ iam: { cache_name: c } }").replacing(
            "cache.example", with: "c-abc123.serverless.use1.cache.amazonaws.com")
        let found = problems(text)
        #expect(found.count == 1)
        #expect(found[0].contains("warning: iam: the address of upstream cache is a serverless"))
    }

    @Test(arguments: [
        "{ iam: {} }", "{ iam: x }", "{ iam: { cache_name: c, region: US } }",
        "{ iam: { cache_name: c, service: rds-db } }", "{ secrets_manager: {} }",
        "{ secrets_manager: { secret_id: s, refresh_every: 0s } }",
        "{ iam: { cache_name: c }, password_file: f }",
    ])
    func `what is wrong is one error`(credentials: String) {
        let found = problems(with(credentials))
        #expect(found.count == 1, "\(found)")
        #expect(found.allSatisfy { $0.contains(": error: ") })
    }

    @Test func `a source says what it is for, and never a secret`() {
        var source = IAMSource(cacheName: "c")
        source.region = "eu-west-1"
        source.isServerless = true
        #expect(
            CredentialSource.iam(source).description == "iam (elasticache c, serverless, eu-west-1)"
        )
        #expect(
            CredentialSource.secretsManager(SecretsManagerSource(secretID: "a/b")).description
                == "secrets_manager a/b")
    }
}
