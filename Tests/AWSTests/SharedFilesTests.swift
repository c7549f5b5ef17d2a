// The syntax of ~/.aws/config and ~/.aws/credentials.

import AWS
import Identity
import Testing

@Suite struct SharedFilesTests {
    private func files(_ config: String = "", _ credentials: String = "") -> SharedFiles {
        SharedFiles(config: config, credentials: credentials)
    }

    @Test func `properties are read with blanks and without`() {
        let profile = files("[profile a]\nregion=x\n  \nRole_ARN  =  y z\t\n").profiles["a"]
        #expect(profile?.texts == ["region": "x", "role_arn": "y z"])
    }

    @Test func `secrets are never texts`() {
        let profile = files(
            "",
            "[a]\naws_access_key_id = AKID\naws_secret_access_key = s=cr#t ; x\n"
                + "aws_session_token=t\n"
        ).profiles["a"]
        #expect(profile?.texts == ["aws_access_key_id": "AKID"])
        #expect(profile?.secrets["aws_secret_access_key"]?.text == "s=cr#t")
        #expect(profile?.secrets["aws_session_token"]?.text == "t")
    }

    @Test func `comments begin a line, or follow a blank`() {
        let profile = files(
            """
            # one
            ; two
            [profile a] ; three
            x = 1 # four
            y = 1;2
            z = 1\t;2
            """
        ).profiles["a"]
        #expect(profile?.texts == ["x": "1", "y": "1;2", "z": "1"])
    }

    @Test func `sections of one name merge and the last value wins`() {
        let profile = files("[profile a]\nx=1\ny=1\n[profile b]\n[profile a]\nx=2\n").profiles["a"]
        #expect(profile?.texts == ["x": "2", "y": "1"])
    }

    @Test func `the profile default has two spellings in config, and one of them wins`() {
        #expect(files("[default]\nx=1\n").profiles["default"]?["x"] == "1")
        for text in [
            "[default]\nx=1\ny=1\n[profile default]\nx=2\n",
            "[profile default]\nx=2\n[default]\nx=1\ny=1\n",
        ] {
            #expect(files(text).profiles["default"]?.texts == ["x": "2"])
        }
    }

    @Test func `credentials go over config, property by property`() {
        let profile = files("[profile a]\nx=1\ny=1\n", "[a]\nx=2\n").profiles["a"]
        #expect(profile?.texts == ["x": "2", "y": "1"])
    }

    @Test func `a section without its word is none in config, and one with it none in credentials`()
    {
        #expect(files("[a]\nx=1\n", "[profile a]\nx=2\n").profiles.isEmpty)
    }

    @Test func `continued values and properties of properties`() {
        let profile = files(
            """
            [profile a]
            x = 1
              2 # kept
            s3 =
              Key = v
              other=w
            """
        ).profiles["a"]
        #expect(profile?["x"] == "1\n2 # kept")
        #expect(profile?.nested["s3"] == ["key": "v", "other": "w"])
    }

    @Test func `sessions and services are sections of their own`() {
        let all = files(
            "[sso-session corp]\nsso_region = r\n[services local]\nsecrets_manager =\n"
                + "  endpoint_url = http://localhost:1\n")
        #expect(all.ssoSessions["corp"]?["sso_region"] == "r")
        #expect(
            all.services["local"]?.nested["secrets_manager"]
                == ["endpoint_url": "http://localhost:1"])
        #expect(all.profiles.isEmpty)
    }

    @Test(arguments: [
        "x=1\n", "[profile", "[profile ]\n", "[]\nx=1", "=", "[profile a b]\nx=1", "]", " x=1",
        "[profile a]\n=1\nnothing\n", "\u{0}", "[profile a]\r\nx\r\n",
    ])
    func `what cannot be understood is skipped`(text: String) {
        for profile in files(text, text).profiles.values { #expect(profile.texts.isEmpty) }
    }

    @Test func `line breaks may be of either kind`() {
        #expect(files("[profile a]\r\nx=1\r\n").profiles["a"]?["x"] == "1")
    }

    @Test func `no bytes make the reader fail`() {
        var random = SystemRandomNumberGenerator()
        let seed = random.next()
        var state = seed
        let alphabet = Array("[]=# ;\n\r\tprofile ax1".utf8) + [0, 255]
        for _ in 0..<2000 {
            var bytes: [UInt8] = []
            for _ in 0..<40 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                bytes.append(alphabet[Int(state >> 33) % alphabet.count])
            }
            let sections = SharedFiles.sections(Secret(bytes))
            #expect(sections.count <= 40, "seed \(seed)")
        }
    }
}

@Suite struct AWSSettingsTests {
    private func settings(_ variables: [String: String]) throws -> AWSSettings {
        try AWSSettings(
            AWSEnvironment(
                ["AWS_CONFIG_FILE": "/nonexistent", "HOME": "/nonexistent"].merging(variables) {
                    $1
                }))
    }

    @Test func `AWS_REGION goes over AWS_DEFAULT_REGION, and an empty variable says nothing`()
        throws
    {
        let both = ["AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"]
        #expect(try settings(both).region == "a")
        #expect(try settings(["AWS_REGION": " ", "AWS_DEFAULT_REGION": "b"]).region == "b")
        #expect(try settings([:]).region == nil)
    }

    @Test func `an endpoint of a service goes over one of all`() throws {
        let settings = try settings([
            "AWS_ENDPOINT_URL": "http://all.example",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://one.example:5000/",
        ])
        #expect(try settings.endpoint(.secretsManager, region: "r").authority == "one.example:5000")
        #expect(try settings.endpoint(.sts, region: "r").authority == "all.example")
    }

    @Test func `configured endpoints can be switched off`() throws {
        let settings = try settings([
            "AWS_ENDPOINT_URL": "http://all.example",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "True",
        ])
        #expect(
            try settings.endpoint(.sts, region: "us-east-1").host == "sts.us-east-1.amazonaws.com")
    }

    @Test func `what is no endpoint is named with its variable`() throws {
        let settings = try settings(["AWS_ENDPOINT_URL_STS": "sts.example"])
        let failure = #expect(throws: AWSFailure.self) {
            try settings.endpoint(.sts, region: "us-east-1")
        }
        #expect(failure?.reason.contains("AWS_ENDPOINT_URL_STS") == true)
    }

    @Test func `a profile that was asked for must be there`() throws {
        let failure = #expect(throws: AWSFailure.self) { try settings(["AWS_PROFILE": "gone"]) }
        #expect(failure?.reason.contains("\"gone\"") == true)
    }
}

@Suite struct CredentialProcessTests {
    @Test(arguments: [
        ("a b", ["a", "b"]), ("  a\t'b c' ", ["a", "b c"]),
        (#"a "b \" c" d\ e"#, ["a", "b \" c", "d e"]),
        (#"'a\b' """#, [#"a\b"#, ""]), ("a $HOME;b|c", ["a", "$HOME;b|c"]),
    ])
    func `a command line is split as a shell splits it, and nothing else`(
        line: String, words: [String]
    ) {
        #expect(CredentialProcess(commandLine: line)?.arguments == words)
    }

    @Test(arguments: ["", "  ", "'a", "\"a", "a\\"])
    func `what is no command is none`(line: String) {
        #expect(CredentialProcess(commandLine: line) == nil)
    }
}

@Suite struct ContainerCredentialsTests {
    @Test(arguments: [
        "https://any.example/x", "http://localhost/x", "http://127.0.0.1:80/x",
        "http://127.1.2.3/x",
        "http://[::1]:1/x", "http://169.254.170.2/x", "http://169.254.170.23/v1/credentials",
        "http://[fd00:ec2::23]/v1/credentials", "http://localhost:9999", "HTTP://LOCALHOST/x",
    ])
    func `a host that may be asked for credentials`(url: String) throws {
        try ContainerCredentials.check(url)
    }

    @Test(arguments: [
        "http://evil.example/x", "http://169.254.170.3/x", "http://169.254.169.254/x",
        "http://127.0.0.1.evil.example/x", "http://127.0.0.1@evil.example/x", "http://127.1/x",
        "http://0x7f.0.0.1/x", "http://127.0.0.01/x", "http://localhost.evil.example/x",
        "http://evil.example\\@localhost/x", "http://evil.example#@localhost", "ftp://localhost/x",
        "localhost", "", "http://", "http://[::ffff:8.8.8.8]/x", "http://localhost\n.evil.example/",
        "http://2130706433/x", "http://127.0.0.1%2eevil.example/",
    ])
    func `a host that may not is refused`(url: String) {
        let failure = #expect(throws: AWSFailure.self) { try ContainerCredentials.check(url) }
        #expect(failure?.kind == .refused)
    }
}

@Suite struct SecretLoginTests {
    private func login(_ text: String) throws -> SecretLogin {
        try SecretLogin(Secret(text), userNameKey: "username", passwordKey: "password")
    }

    @Test func `a plain text is the password`() throws {
        #expect(try login("pass word\n").password.text == "pass word")
        #expect(try login("[1]").password.text == "[1]")
        #expect(try login("x").userName == nil)
    }

    @Test func `an object has both under their keys`() throws {
        let both = try login(
            #" {"username":"app","password":"p\u00e9","user_arn":"a","n":1,"o":{}}"#)
        #expect(both.userName == "app")
        #expect(both.password.text == "pé")
        #expect(try login(#"{"password":"p"}"#).userName == nil)
    }

    @Test(arguments: [
        "", "\n", "{", #"{"username":"a"}"#, #"{"password":1}"#, #"{"password":""}"#,
        #"{"password":"p","username":7}"#, #"{"password":"p","username":"a b"}"#,
    ])
    func `what is no login is refused, and not shown`(text: String) {
        let failure = #expect(throws: SecretLogin.Unusable.self) { try login(text) }
        #expect(failure?.reason.contains("\"p\"") == false)
    }
}
