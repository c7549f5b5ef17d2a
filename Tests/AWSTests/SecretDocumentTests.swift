import AWS
import Identity
import Testing

@Suite struct SecretDocumentTests {
    private func replaced(_ text: String, with new: String = "new", key: String = "password")
        throws -> String
    {
        try SecretDocument(Secret(text), passwordKey: key).replacingPassword(with: Secret(new)).text
    }

    @Test(arguments: [
        (#"{"password":"old"}"#, #"{"password":"new"}"#),
        (
            #" { "a" : 1.10 , "password" : "o\"l,d" , "b":{"password":"x"}} "#,
            #" { "a" : 1.10 , "password" : "new" , "b":{"password":"x"}} "#
        ),
        (
            #"{"b":["}","]",{"password":1}],"password":"old"}"#,
            #"{"b":["}","]",{"password":1}],"password":"new"}"#
        ),
        (#"{"pass\u0077ord":"old"}"#, #"{"pass\u0077ord":"new"}"#),
        (#"{"a":"\\","password":"old"}"#, #"{"a":"\\","password":"new"}"#),
        (#"{"password":null,"z":true}"#, #"{"password":"new","z":true}"#),
        (#"{"password":"","z":1e5}"#, #"{"password":"new","z":1e5}"#),
        (#"{"username":"app"}"#, #"{"username":"app", "password": "new"}"#),
        (#"{}"#, #"{"password": "new"}"#),
        (#"{"z":"ü€😀","password":"old"}"#, #"{"z":"ü€😀","password":"new"}"#),
        ("{\n  \"password\": \"old\"\n}\n", "{\n  \"password\": \"new\"\n}\n"),
        ("old", "new"), ("old\n", "new"), ("", "new"),
    ])
    func onlyThePasswordChanges(_ text: String, _ wanted: String) throws {
        #expect(try replaced(text) == wanted)
    }

    @Test func whatIsNewIsEscaped() throws {
        #expect(
            try replaced(#"{"password":"old"}"#, with: "a\"b\\c\n")
                == #"{"password":"a\"b\\c\u000a"}"#)
    }

    @Test func whatIsKnownIsRead() throws {
        let document = try SecretDocument(
            Secret(#"{"username":"app","password":"p","user_arn":"arn:x","port":6379,"host":""}"#))
        #expect(document.userName == "app")
        #expect(document.password?.text == "p")
        #expect(document.text("user_arn") == "arn:x")
        #expect(document.text("port") == "6379")
        #expect(document.text("host") == nil)
        #expect(document.text("password") == nil)
    }

    @Test(arguments: [
        "{", #"{"password":"a","password":"b"}"#, #"{"password":7}"#, #"{"password":["a"]}"#,
        #"{"username":7,"password":"a"}"#,
    ])
    func whatCannotBeUsedIsRefusedAndNotShown(_ text: String) {
        let failure = #expect(throws: SecretLogin.Unusable.self) {
            try SecretDocument(Secret(text))
        }
        #expect(failure?.reason.contains("\"a\"") == false)
    }

    /// Each text cut off anywhere is refused, or one whose password can be replaced.
    @Test func noCutOffTextTraps() throws {
        let text = #"{"a":"\\\"","b":[{"c":"}"}],"password":"old","d":{"e":null}} "#
        for length in 0...text.utf8.count {
            let cut = Secret(text.utf8.prefix(length))
            guard let document = try? SecretDocument(cut) else { continue }
            let changed = document.replacingPassword(with: Secret("new"))
            #expect(try SecretDocument(changed).password?.text == "new")
        }
    }
}

@Suite struct CacheUserARNTests {
    @Test func bothServicesSpellThem() throws {
        let cache = try #require(
            CacheUserARN("arn:aws-cn:elasticache:cn-north-1:123456789012:user:app-01"))
        #expect(cache.service == .elastiCache)
        #expect(cache.region == "cn-north-1")
        #expect(cache.user == "app-01")
        let memory = try #require(CacheUserARN("arn:aws:memorydb:eu-west-1:123456789012:user/app"))
        #expect(memory.service == .memoryDB)
        #expect(memory.user == "app")
        #expect(CacheUserARN("arn:aws:elasticache:us-east-1:1:user:default.iam-user") != nil)
    }

    @Test(arguments: [
        "", "app", "arn:aws:elasticache:us-east-1:1:user:",
        "arn:aws:elasticache:us-east-1:1:user/app",
        "arn:aws:memorydb:us-east-1:1:user:app", "arn:aws:iam::1:user/app",
        "arn:aws:elasticache:us_east:1:user:app", "arn:aws:elasticache:us-east-1:1:usergroup:app",
        "arn:aws:elasticache:us-east-1:1:user:a b", "arn:aws:elasticache:us-east-1:1:user:a&b=c",
    ])
    func othersAreRefused(_ text: String) {
        #expect(CacheUserARN(text) == nil)
    }
}
