// The entries of `identities`: what they become, and where they are refused.

import Configuration
import Identity
import Testing

/// A configuration whose one listener has these entries, each on a line from 11 on.
private func listener(_ address: String, _ entries: String...) -> String {
    good.replacing("127.0.0.1:6379", with: "\"\(address)\"")
        .replacing(
            "      - { any: true, user: app }\n",
            with: entries.map { "      - \($0)\n" }.joined())
}

private func rules(_ text: String) throws -> [IdentityRule] {
    let loaded = try load(text)
    #expect(loaded.warnings == [])
    return loaded.settings.listeners[0].identities
}

private let tcp = "127.0.0.1:6379"
private let unix = "unix:/run/s"
private let scrypt =
    "$scrypt$ln=10,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
private let sha256 = String(repeating: "0123456789abcdef", count: 4)

@Suite struct `Entries of identities` {
    private let app = UserIndex(0)

    @Test func `have names of accounts, which become numbers`() throws {
        let found = try rules(
            listener(
                unix, "{ unix_user: www-data, user: app }", "{ uid: 0, user: app }",
                "{ unix_group: staff, user: app }", "{ gid: 7, user: app, max_sessions: 3 }"))
        #expect(
            found == [
                IdentityRule([.user(.init(id: 33, name: "www-data"))], user: app),
                IdentityRule([.user(.init(id: 0))], user: app),
                IdentityRule([.group(.init(id: 50, name: "staff"), members: [])], user: app),
                IdentityRule(
                    [.group(.init(id: 7), members: [])], user: app, maximumSessions: 3),
            ])
    }

    @Test func `of a group on TCP have its members, as the database says at the start`() throws {
        let found = try rules(listener(tcp, "{ unix_group: staff, user: app }"))
        #expect(
            found == [
                IdentityRule(
                    [.group(.init(id: 50, name: "staff"), members: [200, 201])], user: app)
            ])
    }

    @Test func `combine conditions`() throws {
        let found = try rules(
            listener(
                "[::1]:6379",
                "{ source: \"::1\", uid: 5, login: { name: x, password_sha256: \(sha256) }, user: app }"
            ))
        #expect(found.count == 1)
        #expect(found[0].conditions == [.user(.init(id: 5)), .source(try AddressRange("::1"))])
        #expect(found[0].principal == "uid:5+source:::1/128+login:x")
    }

    @Test func `have logins with one password or several of each kind`() throws {
        let found = try rules(
            listener(
                "10.0.0.1:6379",
                "{ source: 10.0.0.0/8, user: app, login: { name: a, password_scrypt: '\(scrypt)' } }"
            ).replacing("10.0.0.1:6379", with: tcp)
                + """
                      - user: app
                        login:
                          password_file: [/run/one, /run/two]
                          password_sha256: ["\(sha256)", \(sha256)]

                """)
        let hash = try #require(StoredPassword(hexadecimalSHA256: sha256))
        #expect(found[0].login?.passwords == [.scrypt(try ScryptHash(scrypt))])
        #expect(
            found[1].login
                == Login(
                    name: "default",
                    passwords: [hash, hash, .file(path: "/run/one"), .file(path: "/run/two")]))
    }

    @Test(arguments: [
        ("{ unix_user: wwwdata, user: app }", 22, "unix_user: wanted a user of this system"),
        ("{ unix_user: \"1000\", user: app }", 22, "write uid: 1000 for a number"),
        ("{ unix_user: slow, user: app }", 22, "an error of the system (Input/output error)"),
        ("{ unix_user: nobody, user: app }", 22, "stands for every account without one"),
        ("{ unix_group: nogroup, user: app }", 23, "stands for every account without one"),
        ("{ unix_group: nope, user: app }", 23, "unix_group: wanted a group of this system"),
        ("{ uid: 65534, user: app }", 16, "is never matched"),
        ("{ gid: 4294967295, user: app }", 16, "numbers of accounts go from 0"),
        ("{ uid: -1, user: app }", 16, "write digits only"),
        ("{ source: 10.1.0.0/8, user: app }", 19, "did you mean 10.0.0.0/8?"),
        ("{ source: 10.0.0.0/33, user: app }", 19, "a number of bits"),
        ("{ source: cache.example, user: app }", 19, "write the address in figures"),
        ("{ any: true, uid: 1, user: app }", 16, "any: wanted it alone"),
        ("{ user: app }", 9, "identity rule: wanted a condition"),
        ("{ uid: 1, user: nobody }", 25, "wanted a user that exists"),
        ("{ uid: 1 }", 9, "wanted the key user"),
        ("{ uid: 1, user: app, max_sessions: 0 }", 44, "wanted a number from 1 to 1000000"),
        ("{ user: app, login: { name: x } }", 29, "login: wanted at least one of password_scrypt"),
        ("{ user: app, login: hunter2 }", 29, "login: wanted a mapping"),
        ("{ user: app, login: { password_sha256: hunter2 } }", 48, "64 hexadecimal digits"),
        ("{ user: app, login: { password_scrypt: hunter2 } }", 48, "password_scrypt: wanted"),
        ("{ user: app, login: { password_sha256: [] } }", 48, "got an empty list"),
        ("{ user: app, login: { password_file: { a: b } } }", 46, "got a mapping"),
        ("{ user: app, login: { password_file: \"\" } }", 46, "the path of a file, got nothing"),
        ("{ user: app, login: { name: \"a b\", password_file: x } }", 37, "a name has no spaces"),
    ])
    func `are refused at their place`(entry: String, column: Int, words: String) {
        let found = problems(listener(tcp, entry))
        #expect(found.count == 1, "\(found)")
        #expect(found[0].hasPrefix("c.yaml:11:\(column): error: "), "\(found)")
        #expect(found[0].contains(words), "\(found)")
        #expect(!found[0].contains("hunter2"), "\(found)")
    }

    @Test func `with costs that no machine can pay are refused`() {
        let text = scrypt.replacing("ln=10", with: "ln=24")
        let found = problems(
            listener(tcp, "{ user: app, login: { password_scrypt: '\(text)' } }"))
        #expect(found.count == 1)
        #expect(found[0].contains("at most 256 MiB"))
    }

    @Test(arguments: [
        "unix_user: www-data", "uid: 1", "unix_group: staff", "gid: 1",
    ])
    func `about accounts want a listener on loopback`(condition: String) {
        let found = problems(listener("192.0.2.1:6379", "{ \(condition), user: app }"))
        #expect(found.count == 2, "\(found)")
        #expect(found[1].hasPrefix("c.yaml:11:"), "\(found)")
        #expect(found[1].contains("wanted a listener on loopback or a Unix socket"), "\(found)")
    }

    @Test func `about addresses want a TCP listener`() {
        let found = problems(listener(unix, "{ source: 127.0.0.1, user: app }"))
        #expect(found.count == 1)
        #expect(found[0].contains("source: wanted a TCP listener for it"))
    }

    @Test(arguments: [
        ("{ any: true, user: app }", "{ uid: 1, user: app }"),
        ("{ any: true, user: app }", "{ login: { password_file: f }, user: app }"),
        ("{ uid: 33, user: app }", "{ unix_user: www-data, source: 127.0.0.1, user: app }"),
        ("{ source: 127.0.0.0/8, user: app }", "{ source: 127.0.0.1, user: app }"),
    ])
    func `that an earlier one hides draw a warning`(first: String, second: String) throws {
        let loaded = try load(listener(tcp, first, second))
        #expect(loaded.warnings.map(\.position) == [.file("c.yaml", line: 12, column: 9)])
        #expect(loaded.warnings[0].message.contains("c.yaml:11:9"))
    }

    @Test(arguments: [
        ("{ login: { password_file: f }, user: app }", "{ any: true, user: app }"),
        (
            "{ login: { password_file: f }, user: app }",
            "{ login: { password_file: g }, user: app }"
        ),
        ("{ uid: 33, source: 127.0.0.1, user: app }", "{ uid: 33, user: app }"),
        ("{ source: 127.0.0.1, user: app }", "{ source: \"::1\", user: app }"),
        ("{ uid: 33, user: app }", "{ gid: 33, user: app }"),
    ])
    func `that nothing hides draw none`(first: String, second: String) throws {
        #expect(try load(listener(tcp, first, second)).warnings == [])
    }

    @Test func `with passwords, where others can listen, are warned about as such`() throws {
        let loaded = try load(
            listener("192.0.2.1:6379", "{ login: { password_file: f }, user: app }"))
        #expect(loaded.warnings.count == 1)
        #expect(loaded.warnings[0].message.contains("passwords that can be read on the way"))
    }

    @Test func `with files are looked at when asked for`() throws {
        let text = listener(tcp, "{ login: { password_file: /nonexistent/p }, user: app }")
        #expect(try load(text).warnings == [])
        #expect(
            try load(text, checksFiles: true).warnings.map(\.description).contains {
                $0.contains("\"/nonexistent/p\" cannot be read now")
            })
    }
}

@Suite struct `This system's accounts` {
    @Test func `have root`() {
        #expect(Accounts.system.user("root") == .found(0))
        #expect(Accounts.system.group("root") == .found(0))
        #expect(Accounts.system.members(0).contains(0))
    }

    @Test func `have nobody of a name that there is not`() {
        #expect(Accounts.system.user("no-such-user-here") == .unknown)
        #expect(Accounts.system.group("no-such-group-here") == .unknown)
        #expect(Accounts.system.members(4_000_000_000) == [])
    }
}
