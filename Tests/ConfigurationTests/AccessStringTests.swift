// Reading and judging access strings. That a real server accepts and refuses the same ones is shown by
// Tests/Integration/test_access_string_grammar.py.

import Configuration
import Testing

/// The problems of reading, as `column: message` with columns from 1.
private func errors(_ text: String, _ dialect: AccessDialect = .newest) -> [String] {
    AccessString(text, dialect: dialect).problems.map { "\($0.offset + 1): \($0.message)" }
}

/// Everything that is said about a text.
private func lint(_ text: String, isAWS: Bool = false) -> [AccessProblem] {
    AccessString(text).lint(isAWS: isAWS)
}

private func permissions(_ text: String) -> AccessPermissions {
    AccessPermissions(AccessString(text, dialect: .redis7), dialect: .redis7)
}

@Suite struct AccessStringTests {
    @Test(arguments: [
        "on ~* &* +@all", "ON NOPASS AllKeys allchannels ALLCOMMANDS", "off resetkeys nocommands",
        "%R~a %W~b %RW~c %rw~d %WR~e ~f ~", "+GET -Config|SET +config|get +select|0 +@Read -@WRITE",
        "sanitize-payload skip-sanitize-payload resetpass resetchannels clearselectors reset",
        "(~a +get) ( ~b +set ) ()", "(~a))", "  on\t+get\n", "", "+json.get -ft.search +@json",
        "~a ~* resetkeys ~b", "alldbs resetdbs db=0,15 DB=1", "~a%~b ~ü* &*.x",
    ])
    func `what servers accept is accepted`(text: String) {
        #expect(errors(text) == [])
    }

    @Test(arguments: [
        ("on ~* +gett", "7: wanted a command, got \"+gett\": did you mean +get?"),
        ("+@reed", "1: wanted a category, got \"+@reed\": did you mean +@read?"),
        ("on +@get", "4: wanted a category, got \"+@get\": it is a command; write +get"),
        ("on -write", "4: wanted a command, got \"-write\": it is a category; write -@write"),
        (
            "on +config|gett",
            "4: wanted a subcommand of config, got \"+config|gett\": did you mean +config|get?"
        ),
        (
            "on onn",
            "4: wanted a rule, got \"onn\": did you mean on?"
        ),
        ("get", "1: wanted a rule, got \"get\": did you mean +get?"),
        (
            "~ü* ~* ~a",
            "8: wanted no key pattern behind ~* or allkeys, got \"~a\": it would have no effect;"
                + " remove it or the ~*"
        ),
        (
            "on (~a +get",
            "4: wanted a ) that ends the selector begun here, got none: write it, before a space"
                + " or at the end"
        ),
        (
            "(~a on)",
            "5: wanted commands, keys or channels inside a selector, got on: it is said of the"
                + " whole user; write it before the parenthesis"
        ),
    ])
    func `a mistake is named with its place and a way out`(text: String, expected: String) {
        #expect(errors(text) == [expected])
    }

    @Test(arguments: [
        "+", "-", "+@", "+get|", "+|x", "+config|get|x", "+client|kill|id", "-select|0", "-get|x",
        "%", "%~", "%~a", "%X~a", "%RR~a", "%RWR~a", ")", "(", "((~a))", "(~a (+get)", "(reset)",
        "&* &a", "~* %R~a", "nodbs", "db=", "db=x", "db=1-3", "db=-1", "~a\0b", "+@nope",
        "(~\"a)", "(~a'b)",
    ])
    func `what servers refuse, and what is not what it seems, is refused`(text: String) {
        #expect(errors(text).count == 1, "\(errors(text))")
    }

    @Test func `all mistakes are found at once`() {
        #expect(errors("+gett +@reed %X~a").map { $0.prefix(3) } == ["1: ", "7: ", "14:"])
    }

    @Test(arguments: [">hunter2", "<hunter2", "#hunter2", "!hunter2", "hunter2"])
    func `a password is refused and not shown`(text: String) {
        #expect(errors(text).count == 1)
        #expect(!"\(errors(text))".contains("hunter2"))
    }

    @Test(arguments: [
        ("%R~a", AccessDialect.redis62, AccessDialect.redis7),
        ("(~a +get)", .redis62, .redis7), ("-config|set", .redis62, .redis7),
        ("clearselectors", .redis62, .redis7), ("&a", .redis6, .redis62),
        ("+getex", .redis6, .redis62), ("+sintercard", .redis62, .redis7),
        ("+hexpire", .redis7, .newest), ("+client|no-touch", .redis7, .newest),
        ("alldbs", .redis7, .newest), ("+@json", .redis7, .newest), ("+json.get", .redis7, .newest),
    ])
    func `what came later is refused for an older server`(
        text: String, before: AccessDialect, since: AccessDialect
    ) {
        #expect(errors(text, before).count == 1)
        #expect(errors(text, since) == [])
    }

    @Test func `before Redis 7 a subcommand is any first argument`() {
        #expect(errors("+config|nonsense", .redis62) == [])
        #expect(errors("+config|nonsense", .redis7).count == 1)
    }

    @Test(arguments: [
        ("6.0.16", AccessDialect.redis6), ("6.2.14", .redis62), ("7.0.15", .redis7),
        ("7.2.4", .newest), ("8.0.0", .newest), ("", .redis6), ("x.y", .redis6),
    ])
    func `a server's version chooses the dialect`(version: String, dialect: AccessDialect) {
        #expect(AccessDialect(version: version) == dialect)
    }

    @Test func `any text at all is read without a trap`() {
        var generator = SystemRandomNumberGenerator()
        let seed = generator.next()
        var random = Seeded(state: seed)
        let pieces = [
            "+", "-", "@", "~", "%", "&", "(", ")", "|", "get", "config", "all", "R", "W", " ",
            "  ",
            "\"", "'", "\0", "\t", "ü", "👩‍👩‍👧", "db=", "1", ",", "on", "*", ">", "#", ".", "\r\n",
            "\u{301}",
        ]
        for _ in 0..<20_000 {
            let count = Int(random.next() % 12)
            let text = (0..<count).map { _ in pieces[Int(random.next() % UInt64(pieces.count))] }
                .joined()
            let access = AccessString(text)
            let length = text.unicodeScalars.count
            for problem in access.lint(isAWS: random.next() % 2 == 0) {
                #expect(
                    (0...length).contains(problem.offset), "seed \(seed): \(text.debugDescription)")
            }
        }
    }
}

private struct Seeded {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state >> 33
    }
}

@Suite struct AccessLintTests {
    @Test(arguments: [
        "on ~app:* &app:* -@all +@read +@write", "on ~* &* +@all -@admin -@dangerous",
        "on -@all +ping", "on -@all +@all -@admin ~*", "on ~a* -@all +get (~b* +set)",
        "on ~* resetchannels -@all +@read", "on -@all (~a* +get)",
    ])
    func `an access string that says what it means draws no warning`(text: String) {
        #expect(lint(text) == [])
    }

    @Test func `on ElastiCache everything for everyone takes nothing over`() {
        #expect(lint("on ~* +@all", isAWS: true) == [])
        #expect(lint("on ~* +@all").count == 1)
    }

    @Test(arguments: [
        ("~* -@all +get", 1, "nobody can log in as this user: it says neither on nor off"),
        ("on ~* -@all +get off", 1, "\"on\" has no effect"),
        ("off ~* -@all +get", 1, "nobody can log in as this user: it says off"),
        ("on nopass ~* -@all +get", 4, "nopass: whoever reaches the server"),
        ("on ~* +get -@all", 7, "\"+get\" has no effect, because -@all comes behind it"),
        ("on ~a resetkeys ~b -@all +get", 4, "\"~a\" has no effect, because resetkeys"),
        ("on ~* -@all", 7, "this user may do nothing"),
        ("on -@all +get +set", 1, "no key is allowed, so that every use of get and 1 more"),
        ("on ~a +get (+set)", 12, "no key is allowed, so that every use of set"),
        ("on ~ +get", 4, "\"~\" allows the key whose name is empty"),
        ("on -@all +subscribe", 10, "no channel is allowed"),
        ("on ~* +@all", 1, "every client that becomes this user can take the server over"),
        ("on ~* +get +acl|setuser", 1, "(ACL SETUSER)"),
        ("on ~* +get ()", 12, "a selector with nothing in it"),
    ])
    func `what was probably not meant draws a warning`(text: String, column: Int, words: String) {
        let found = lint(text)
        #expect(found.allSatisfy { $0.severity == .warning })
        #expect(
            found.contains { $0.offset + 1 == column && $0.message.contains(words) },
            "\(found)")
    }

    @Test(arguments: [
        "on ~* reset +get", "on ~* +@all +config|get", "on ~* +@all -config", "on ~* +debug",
        "on ~* +@all -acl|setuser", "on ~* (+@all -save)",
    ])
    func `what ElastiCache refuses is an error for its servers and only for them`(text: String) {
        #expect(lint(text, isAWS: true).contains { $0.severity == .error })
        #expect(!lint(text).contains { $0.severity == .error })
    }

    @Test(arguments: [
        ("master.a.bcdefg.use1.cache.amazonaws.com", true),
        ("a-bcdefg.serverless.cnn1.cache.amazonaws.com.cn", true),
        ("clustercfg.a.bcdefg.memorydb.eu-west-1.amazonaws.com", true),
        ("ec2-1-2-3-4.compute-1.amazonaws.com", false), ("cache.example", false),
        ("cache.amazonaws.example", false),
    ])
    func `AWS's endpoints are known by their names`(host: String, isAWS: Bool) {
        #expect(isManagedByAWS(host: host) == isAWS)
    }
}

@Suite struct AccessPermissionsTests {
    @Test(arguments: [
        ("on ~a +get", "on +get ~a"), ("+@all -@all +get", "-@all +get"), ("allcommands", "+@all"),
        ("+config|get +config|set -config|set", "+config|get"), ("%RW~a", "~a"),
        ("+@read -@read", "-@all"), ("~a reset on", "on"), ("(~a +get) clearselectors", ""),
        ("+config", "+config|get +config|set +config|resetstat +config|rewrite +config|help"),
        ("+get +get|x", "+get"), ("+select|0 -select", ""), ("+SELECT|Ab", "+select|aB"),
    ])
    func `two ways to say the same amount to the same`(left: String, right: String) {
        #expect(permissions(left) == permissions(right))
        #expect(permissions(left).differences(from: permissions(right)) == [])
    }

    @Test(arguments: [
        ("on +get", "+get", ["the user is off, and should be on"]),
        ("+get", "+get nopass", ["the user needs no password (nopass), and should"]),
        ("+get +set", "+get", ["commands not allowed: set"]),
        (
            "+get", "+get +set ~a",
            ["commands allowed beyond it: set", "keys allowed beyond it: ~a"]
        ),
        ("~a", "%R~a", ["keys not allowed: ~a", "keys allowed beyond it: %R~a"]),
        ("&a", "", ["channels not allowed: &a"]),
        (
            "(~a +get)", "(~b +get)",
            [
                "in a selector: keys not allowed: ~a", "in a selector: keys allowed beyond it: ~b",
            ]
        ),
        ("(~a +get)", "", ["1 selectors are not there"]),
        (
            "+select|0", "+select|1",
            [
                "commands not allowed: select|0", "commands allowed beyond it: select|1",
            ]
        ),
    ])
    func `a difference is told in words`(wanted: String, actual: String, words: [String]) {
        #expect(permissions(wanted).differences(from: permissions(actual)) == words)
    }

    @Test func `many differences are counted, and some of them shown`() {
        let found = permissions("+@all").differences(from: permissions("-@all"))
        #expect(found.count == 1)
        #expect(found[0].hasPrefix("commands not allowed: @"))
        #expect(found[0].contains("… ("))
    }
}

@Suite struct AccessStringSettingTests {
    private func access(_ value: String, host: String = "cache.example") -> [String] {
        problems(
            good.replacing(
                "credentials: {", with: "access_string: \(value)\n    credentials: {"
            )
            .replacing("cache.example", with: host))
    }

    @Test(arguments: [
        ("on ~a +gett", 26), ("\"on ~a +gett\"", 27), ("'on ~ü +gett'", 27),
    ])
    func `a mistake is found at its column in the file`(value: String, column: Int) {
        #expect(
            access(value) == [
                "c.yaml:7:\(column): error: access_string: wanted a command, got \"+gett\":"
                    + " did you mean +get?"
            ])
    }

    @Test(arguments: [">-\n          on ~a\n          +gett", "\"on\\t~a +gett\""])
    func `where the file's columns are not the text's the character is counted`(value: String) {
        #expect(
            access(value) == [
                "c.yaml:7:20: error: character 7 of access_string: wanted a command, got"
                    + " \"+gett\": did you mean +get?"
            ])
    }

    @Test func `a list is not an access string`() {
        #expect(access("[on, +get]").count == 1)
        #expect(access("[on, +get]")[0].contains("wanted one text with the rules"))
    }

    @Test func `the host of the user's upstream says whose rules hold`() {
        #expect(access("on ~a +@all -@admin -@dangerous +config|get") == [])
        #expect(
            access("on ~a +config|get", host: "a.b.use1.cache.amazonaws.com")[0].contains(
                "they keep config|get to themselves"))
    }
}
