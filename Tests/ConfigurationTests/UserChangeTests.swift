// What is to be changed about a user. That a server is then as declared is shown by
// Tests/Integration/test_users.py.

import Configuration
import Testing

private let none = ["off", "resetkeys", "resetchannels", "-@all", "clearselectors"]

private func state(
    _ access: String, _ passwords: Set<String> = ["p"], flags: Set<String> = ["sanitize-payload"],
    hasDatabases: Bool = false
) -> ServerUserState {
    ServerUserState(
        access: AccessString(access, dialect: .redis7, isFromServer: true), passwords: passwords,
        flags: flags, hasDatabases: hasDatabases)
}

private func change(
    _ access: String, _ actual: ServerUserState?, keepable: [String: String] = [:],
    keepsOthers: Bool = false, dialect: AccessDialect = .redis7
) -> ServerUserChange {
    ServerUserChange(
        AccessString(access, dialect: dialect),
        passwords: DeclaredPasswords(required: "p", keepable: keepable), keepsOthers: keepsOthers,
        actual: actual, dialect: dialect)
}

/// Differences as `subject +missing -extra`.
private func texts(_ change: ServerUserChange) -> [String] {
    change.differences.map { difference in
        "\(difference.subject.rawValue) +\(difference.missing.joined(separator: ","))"
            + " -\(difference.extra.joined(separator: ","))"
    }
}

@Suite struct ServerUserChangeTests {
    @Test func `what is as declared needs no change`() {
        let found = change("on ~a +get", state("on +@all -@all +get ~a"))
        #expect(found.isEmpty)
        #expect(found.differences == [])
        #expect(found.authentication == [])
    }

    @Test func `a new user gets all of it`() {
        let found = change("on ~a +get (~b +set)", nil)
        #expect(found.isNew && !found.isEmpty)
        #expect(found.rules == none + ["on", "~a", "+get", "(~b +set)", "#p"])
        #expect(found.differences.map(\.subject) == [.user, .commands, .keys, .selectors])
        #expect(found.differences.allSatisfy { $0.extra.isEmpty })
    }

    @Test func `a user that may do nothing is new all the same`() {
        #expect(!change("off", nil).isEmpty)
    }

    @Test func `what it may do more and less are told apart`() {
        let found = change("on ~a +get", state("on ~a ~b +set"))
        #expect(texts(found) == ["commands +get -set", "keys + -~b"])
        // Passwords that are right are not spoken of: a rotation may be changing them.
        #expect(found.rules == none + ["on", "~a", "+get"])
    }

    @Test func `passwords are added and removed one by one`() {
        let found = change("on +get", state("on +get", ["q", "r"]))
        #expect(found.rules.suffix(3) == ["#p", "!q", "!r"])
        #expect(
            found.authentication == [
                "the declared password becomes one of its passwords",
                "2 other passwords are no longer good",
            ])
        #expect(found.differences == [])
    }

    @Test func `a rotation's passwords stay if the user has them, and are not added`() {
        let keepable = ["q": "AWSPREVIOUS", "s": "AWSPENDING"]
        #expect(change("on +get", state("on +get", ["p", "q"]), keepable: keepable).isEmpty)
        let found = change("on +get", state("on +get", ["q", "r"]), keepable: keepable)
        #expect(found.rules.suffix(2) == ["#p", "!r"])
    }

    @Test func `others stay where that is wanted`() {
        #expect(change("on +get", state("on +get", ["p", "q"]), keepsOthers: true).isEmpty)
        let found = change("on +get", state("on +get", ["q"]), keepsOthers: true)
        #expect(found.rules.last == "#p")
        #expect(found.authentication.count == 1)
    }

    @Test func `a user without a password gets one, and the other way round`() {
        let given = change("on +get", state("on nopass +get", []))
        #expect(given.rules.suffix(2) == ["resetpass", "#p"])
        #expect(texts(given) == ["user + -nopass"])
        let taken = change("on nopass +get", state("on +get", ["p"]))
        #expect(taken.rules.last == "nopass")
        #expect(taken.authentication == ["any password will do (nopass)"])
        #expect(change("on nopass +get", state("on nopass +get", [])).isEmpty)
    }

    @Test func `reset in an access string does not forget passwords`() {
        let found = change("~x reset on +get resetpass", state("on +set"))
        #expect(found.rules == none + ["~x"] + none + ["on", "+get"])
        #expect(!found.rules.contains("reset") && !found.rules.contains("resetpass"))
    }

    @Test func `what is restored is checked unless it is said otherwise`() {
        let skipping = state("on +get", flags: ["skip-sanitize-payload"])
        #expect(change("on +get", skipping).rules.last == "sanitize-payload")
        #expect(change("on +get skip-sanitize-payload", skipping).isEmpty)
        #expect(
            change("on +get skip-sanitize-payload", state("on +get")).rules.last
                == "skip-sanitize-payload")
        // A server that does not tell is not asked again and again.
        #expect(change("on +get skip-sanitize-payload", state("on +get", flags: ["on"])).isEmpty)
    }

    @Test func `rules that the server does not know are not sent`() {
        #expect(
            change("on +get", nil, dialect: .redis6).rules
                == ["off", "resetkeys", "-@all", "on", "+get", "#p"])
        let newer = state("on +set", hasDatabases: true)
        #expect(change("on +get", newer, dialect: .newest).rules.contains("alldbs"))
        #expect(!change("on +get", state("on +set")).rules.contains("alldbs"))
    }
}

@Suite struct CacheUserChangeTests {
    private func state(
        _ access: String = "on ~a +get", _ authentication: String = "password", _ count: Int = 1
    ) -> CacheUserState {
        CacheUserState(
            access: AccessString(access, isFromServer: true), authentication: authentication,
            passwordCount: count)
    }

    private func change(
        _ wanted: CacheUserChange.Authentication, _ actual: CacheUserState?,
        keepsOthers: Bool = false, sets: Bool = false
    ) throws -> CacheUserChange {
        try CacheUserChange(
            AccessString("on ~a +get"), wanted, keepsOthers: keepsOthers, sets: sets,
            actual: actual)
    }

    @Test func `what is as declared needs no change`() throws {
        #expect(try change(.password(.accepted, kept: 0), state()).isEmpty)
        #expect(
            try change(.password(.accepted, kept: 1), state("+get ~a on", "password", 2)).isEmpty)
        #expect(try change(.iam, state("on ~a +get", "iam", 0)).isEmpty)
    }

    @Test func `a new user is made with what it logs in with`() throws {
        for wanted in [CacheUserChange.Authentication.iam, .password(.unknown(""), kept: 0)] {
            let found = try change(wanted, nil)
            #expect(found.isNew && found.setsAuthentication && found.changesAccess)
            #expect(found.warning == nil)
        }
    }

    @Test func `permissions are changed without the password`() throws {
        let found = try change(.password(.accepted, kept: 0), state("on ~b +get"))
        #expect(found.changesAccess && !found.setsAuthentication)
    }

    @Test func `a password that is refused is set`() throws {
        let found = try change(.password(.refused, kept: 0), state())
        #expect(found.setsAuthentication && !found.changesAccess)
        #expect(found.authentication.count == 2)
        let kept = try change(.password(.refused, kept: 1), state())
        #expect(kept.authentication == ["the declared password becomes one of its passwords"])
    }

    @Test func `others go unless they are kept`() throws {
        let two = state("on ~a +get", "password", 2)
        #expect(
            try change(.password(.accepted, kept: 0), two).authentication == [
                "1 other password is no longer good"
            ])
        #expect(try change(.password(.accepted, kept: 0), two, keepsOthers: true).isEmpty)
        #expect(throws: CacheUserChange.Impossible.self) {
            try change(.password(.refused, kept: 0), two, keepsOthers: true)
        }
    }

    @Test func `what cannot be found out is left, and said`() throws {
        let found = try change(.password(.unknown("no way there"), kept: 0), state())
        #expect(found.isEmpty)
        #expect(found.warning?.contains("no way there") == true)
        let set = try change(.password(.unknown("no way there"), kept: 0), state(), sets: true)
        #expect(set.setsAuthentication && set.warning == nil)
        // How many are unknown is not known either.
        let two = try change(
            .password(.unknown("no way there"), kept: 0), state("on ~a +get", "password", 2))
        #expect(two.isEmpty)
    }

    @Test(arguments: [
        (CacheUserChange.Authentication.iam, "password"), (.password(.refused, kept: 0), "iam"),
        (.password(.refused, kept: 0), "no-password"),
    ])
    func `another way to log in is a change`(
        wanted: CacheUserChange.Authentication, actual: String
    ) throws {
        let found = try change(wanted, state("on ~a +get", actual, 1))
        #expect(found.setsAuthentication)
        #expect(found.authentication.count == 1 && found.authentication[0].contains(actual))
    }
}
