// What an access string says to a command. That a real server says the same to hundreds of random users and
// commands is shown by Tests/Integration/test_users.py.

import Configuration
import Testing

private func verdict(
    _ text: String, _ command: String, _ dialect: AccessDialect = .redis7
) throws -> AccessVerdict {
    // `''` stands for the key that is empty.
    let words = command.split(separator: " ").map { $0 == "''" ? "" : String($0) }
    let request = try AccessRequest(words)
    let keys = try #require(request.keys)
    let access = AccessString(text, dialect: dialect)
    #expect(access.problems == [])
    return AccessVerdict(access, request, keys: keys, dialect: dialect)
}

/// Keys as they are read and written: `a:r`, `b:w`, `c:rw`, `d:`.
private func keys(_ command: String) throws -> [String] {
    let request = try AccessRequest(
        command.split(separator: " ").map { $0 == "''" ? "" : String($0) })
    return try #require(request.keys).map { use in
        String(decoding: use.key, as: UTF8.self) + ":" + (use.reads ? "r" : "")
            + (use.writes ? "w" : "")
    }
}

@Suite struct AccessVerdictTests {
    @Test(arguments: [
        (
            "on ~app:* +@read", "get app:1",
            "by +@read at character 11; key app:1 (read) by ~app:* at character 4"
        ),
        ("+@all -@all +get ~*", "get a", "by +get at character 13; its key by ~* at character 18"),
        ("+mget ~*", "mget a b", "by +mget at character 1; its 2 keys by ~* at character 7"),
        ("+ping", "ping", "by +ping at character 1"),
        ("+config", "config get x", "by +config at character 1"),
        ("+config|get", "config get x", "by +config|get at character 1"),
        ("+select|0 +select|1", "select 1", "by +select|1 at character 11"),
        ("-@all", "auth x", "auth needs no permission, as logins do not"),
        (
            "+get (~b +set)", "set b x",
            "by +set at character 10; key b (write) by ~b at character 7 in the selector at"
                + " character 6"
        ),
        (
            "&a* &b +subscribe", "subscribe ax b",
            "by +subscribe at character 8; channel ax by &a* at character 1; channel b by &b at"
                + " character 5"
        ),
        (
            "&a* +psubscribe", "psubscribe a*",
            "by +psubscribe at character 5; channel a* by &a* at character 1"
        ),
        (
            "&* +publish", "publish a m",
            "by +publish at character 4; its channels by &* at character 1"
        ),
        ("-@all", "hello", "hello needs no permission, as logins do not"),
        ("+unsubscribe", "unsubscribe a", "by +unsubscribe at character 1"),
        // Two rules on one pattern are one permission, as for the server.
        (
            "%R~a %W~a +getdel", "getdel a",
            "by +getdel at character 11; key a (read and write) by %R~a at character 1"
        ),
    ])
    func `what is allowed is allowed by a rule`(text: String, command: String, reason: String)
        throws
    {
        let found = try verdict(text, command)
        #expect(found.isAllowed)
        #expect(found.reason == reason)
    }

    @Test(arguments: [
        ("on ~app:* +@read", "get secret:1", "key secret:1 (read) matches none of ~app:*"),
        ("+get", "get a", "key a (read): no key is allowed"),
        ("%R~a +set", "set a x", "key a (write): %R~a does not allow that"),
        (
            "%R~a* %W~ab +getdel", "getdel ab",
            "key ab (read and write): %R~a*, %W~ab does not allow that"
        ),
        ("~* +@all -set", "set a x", "by -set at character 10"),
        ("~* +@all -config|set", "config set a b", "by -config|set at character 10"),
        ("~* +get", "set a x", "no rule allows set"),
        ("~* +select|0", "select 1", "select is allowed with the first argument of +select|0 only"),
        ("~* +select|0 -select", "select 0", "by -select at character 14"),
        ("+publish", "publish a m", "channel a: no channel is allowed"),
        ("&b +publish", "publish a m", "channel a matches none of &b"),
        ("&a* +psubscribe", "psubscribe ab", "channel pattern ab is none of &a*"),
        // The selector came further than the user itself.
        (
            "~a +get (~b +set)", "set a x",
            "key a (write) matches none of ~b in the selector at character 9"
        ),
        ("~a +set reset on", "set a x", "no rule allows set"),
        ("~* +@all resetkeys", "get a", "key a (read): no key is allowed"),
    ])
    func `what is denied is denied for a reason`(text: String, command: String, reason: String)
        throws
    {
        let found = try verdict(text, command)
        #expect(!found.isAllowed)
        #expect(found.reason == reason)
    }

    @Test(arguments: [
        ("h?llo", "hello", true), ("h?llo", "hllo", false), ("h*o", "ho", true), ("*", "x", true),
        ("h[ae]llo", "hallo", true), ("h[ae]llo", "hillo", false), ("h[^e]llo", "hallo", true),
        ("h[^e]llo", "hello", false), ("h[a-c]", "hb", true), ("h[c-a]", "hb", true),
        ("h[ab", "ha", true), ("h[ab", "hc", false), ("h\\*", "h*", true), ("h\\*", "hx", false),
        ("[\\]]", "]", true), ("a**b", "axxb", true), ("a*b*c", "a-b-c", true), ("a*", "a", true),
        ("a", "ab", false), ("", "a", false),
        ("a*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ("ü*", "übel", true), ("[", "a", false),
    ])
    func `patterns match as the server's do`(pattern: String, key: String, matches: Bool) throws {
        // A rule that is not allkeys, so that the pattern is asked.
        #expect(try verdict("%R~\(pattern) +get", "get \(key)").isAllowed == matches)
    }

    @Test func `the empty key fits the empty pattern alone`() throws {
        #expect(try verdict("~ +get", "get ''").isAllowed)
        #expect(!(try verdict("%R~* +get", "get ''").isAllowed))
    }

    @Test(arguments: [
        ("get a", ["a:r"]), ("set a x", ["a:w"]), ("set a x GET", ["a:rw"]),
        ("exists a b", ["a:", "b:"]),
        ("mset a x b y", ["a:w", "b:w"]), ("blpop a b 0", ["a:rw", "b:rw"]),
        ("rename a b", ["a:rw", "b:w"]),
        ("bitfield a get u8 0", ["a:r"]), ("bitfield a overflow sat incrby u8 0 1", ["a:rw"]),
        ("bitfield a get u8", ["a:rw"]),
        ("sort a by x get y limit 0 1 store b", ["a:r", "b:w"]),
        ("sort a store b store c", ["a:r", "c:w"]),
        ("sort a get store b", ["a:r"]), ("sort_ro a by x", ["a:r"]),
        ("zunion 2 a b", ["a:r", "b:r"]), ("zunion 9 a b", []), ("zunion x a", []),
        ("zunion -1 a", []),
        ("zunionstore d 2 a b", ["d:w", "a:r", "b:r"]), ("zunionstore d 5 a b", []),
        ("eval s 1 a x", ["a:rw"]), ("eval s 0 a", []), ("fcall_ro f 2 a b", ["a:r", "b:r"]),
        ("xread count 1 streams a b 0 0", ["a:r", "b:r"]), ("xread count 1 block", []),
        ("xreadgroup group g c streams a >", ["a:r"]), ("xgroup create a g 0", ["a:w"]),
        ("migrate h 1 a 0 1", ["a:rw"]),
        ("migrate h 1 '' 0 1 auth2 u keys keys a b", ["a:rw", "b:rw"]),
        ("migrate h 1 a 0 1 keys b", []), ("georadius a 0 0 1 m store b", ["a:r", "b:w"]),
        ("georadius a 0 0 1 m", ["a:r"]), ("object encoding a", ["a:"]), ("ping", []),
        ("config get a", []),
        ("publish a b", []), ("spublish a b", []), ("ssubscribe a", []),
        ("lmpop 2 a b left", ["a:rw", "b:rw"]),
    ])
    func `keys are where the server finds them`(command: String, found: [String]) throws {
        #expect(try keys(command) == found)
    }

    @Test(arguments: [
        ("nosuch x", AccessRequest.Mistake.noSuchCommand("nosuch")),
        ("CONFIG Nosuch", .noSuchSubcommand("nosuch", of: "config")),
        ("get", .wrongNumberOfArguments("get")),
        ("get a b", .wrongNumberOfArguments("get")), ("set a", .wrongNumberOfArguments("set")),
        ("config get", .wrongNumberOfArguments("config|get")),
    ])
    func `what is no command is not judged`(command: String, mistake: AccessRequest.Mistake) {
        #expect(throws: mistake) {
            try AccessRequest(command.split(separator: " ").map(String.init))
        }
    }

    @Test func `before Redis 7 rules are about whole commands`() throws {
        #expect(try verdict("+config", "config get x", .redis6).isAllowed)
        #expect(try verdict("+config|get", "config get x", .redis6).isAllowed)
        #expect(!(try verdict("+config|get", "config set x y", .redis6).isAllowed))
        #expect(try verdict("+publish", "publish c m", .redis6).isAllowed)
        #expect(!(try verdict("+publish", "publish c m", .redis62).isAllowed))
    }

    @Test func `the rules that decided have their places`() throws {
        let found = try verdict("on ~app:* +@read", "get app:1")
        #expect(found.rules.map(\.text) == ["+@read", "~app:*"])
        #expect(found.rules.map(\.offset) == [10, 3])
    }
}
