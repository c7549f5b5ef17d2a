// Which client becomes which user, by facts alone.

import Identity
import Testing

private let www = IdentityRule.Account(id: 33, name: "www-data")
private let staff = IdentityRule.Account(id: 50, name: "staff")
private let legacy = Login(name: "legacy", passwords: [.file(path: "/p")])

private func rule(_ conditions: IdentityRule.Condition..., login: Login? = nil) -> IdentityRule {
    IdentityRule(conditions, login: login, user: UserIndex(0))
}

private func from(_ address: String, uid: UInt32? = nil) -> Client {
    Client(userID: uid, address: IPAddress(address), port: 50_000)
}

private func local(uid: UInt32?, groups: [UInt32]? = []) -> Client {
    Client(userID: uid, groupIDs: groups)
}

@Suite struct `A rule` {
    @Test func `without conditions holds for everybody`() {
        #expect([rule()].admission(of: local(uid: nil)) == .admitted(rule: 0, logins: []))
        #expect([rule()].admission(of: from("203.0.113.1")) == .admitted(rule: 0, logins: []))
    }

    @Test func `about a user holds for that user alone`() {
        let rules = [rule(.user(www))]
        #expect(rules.admission(of: local(uid: 33)) == .admitted(rule: 0, logins: []))
        #expect(rules.admission(of: from("127.0.0.1", uid: 33)) == .admitted(rule: 0, logins: []))
        #expect(rules.admission(of: local(uid: 34)) == .refused)
        #expect(rules.admission(of: local(uid: 0)) == .refused)
    }

    @Test func `about a user or a group never holds for somebody whom nobody attests`() {
        let zero = IdentityRule.Account(id: 0)
        let rules = [rule(.user(zero)), rule(.group(zero, members: [0]))]
        #expect(rules.admission(of: local(uid: nil)) == .refused)
        #expect(rules.admission(of: local(uid: nil, groups: [0])) == .refused)
        #expect(rules.admission(of: from("127.0.0.1")) == .refused)
    }

    @Test func `about a group holds for attested groups, primary or supplementary`() {
        let rules = [rule(.group(staff, members: []))]
        #expect(rules.admission(of: local(uid: 1, groups: [50])) == .admitted(rule: 0, logins: []))
        #expect(
            rules.admission(of: local(uid: 1, groups: [1, 2, 50])) == .admitted(rule: 0, logins: [])
        )
        #expect(rules.admission(of: local(uid: 50, groups: [1])) == .refused)
        #expect(rules.admission(of: local(uid: 50, groups: [])) == .refused)
    }

    @Test func `about a group goes by the database where the kernel attests no groups`() {
        let rules = [rule(.group(staff, members: [7]))]
        #expect(rules.admission(of: from("::1", uid: 7)) == .admitted(rule: 0, logins: []))
        #expect(rules.admission(of: from("::1", uid: 8)) == .refused)
    }

    @Test func `about a group does not go by the database where the kernel attests groups`() {
        let rules = [rule(.group(staff, members: [7]))]
        #expect(rules.admission(of: local(uid: 7, groups: [])) == .refused)
    }

    @Test func `about an address holds for TCP clients from there`() throws {
        let rules = [rule(.source(try AddressRange("10.0.0.0/8")))]
        #expect(rules.admission(of: from("10.1.2.3")) == .admitted(rule: 0, logins: []))
        #expect(rules.admission(of: from("::ffff:10.1.2.3")) == .admitted(rule: 0, logins: []))
        #expect(rules.admission(of: from("192.0.2.1")) == .refused)
        #expect(rules.admission(of: local(uid: 0)) == .refused)
    }

    @Test func `of several conditions holds when all of them do`() throws {
        let here = try AddressRange("127.0.0.1")
        let rules = [rule(.user(www), .source(here))]
        #expect(rules.admission(of: from("127.0.0.1", uid: 33)) == .admitted(rule: 0, logins: []))
        #expect(rules.admission(of: from("127.0.0.2", uid: 33)) == .refused)
        #expect(rules.admission(of: from("127.0.0.1", uid: 34)) == .refused)
    }

    @Test func `is called by its conditions, in printable characters without spaces`() throws {
        #expect(rule().principal == "any")
        #expect(rule(.user(www)).principal == "unix_user:www-data")
        #expect(rule(.user(.init(id: 5))).principal == "uid:5")
        #expect(rule(.group(staff, members: [])).principal == "unix_group:staff")
        #expect(rule(.group(.init(id: 5), members: [])).principal == "gid:5")
        #expect(rule(.source(try AddressRange("::/0"))).principal == "source:::/0")
        #expect(rule(.user(www), login: legacy).principal == "unix_user:www-data+login:legacy")
        #expect(rule(.user(.init(id: 5, name: "a b\nü"))).principal == "unix_user:a?b???")
    }
}

@Suite struct `The order of rules` {
    private let rules = [
        rule(.user(www), login: legacy),
        rule(login: legacy),
        rule(.user(www)),
        rule(.group(staff, members: []), login: legacy),
        rule(.group(staff, members: [])),
    ]

    @Test func `lets the first that holds decide`() {
        let rules = [rule(.user(www)), rule(.user(www)), rule()]
        #expect(rules.admission(of: local(uid: 33)) == .admitted(rule: 0, logins: []))
        #expect(rules.admission(of: local(uid: 34)) == .admitted(rule: 2, logins: []))
    }

    @Test func `makes candidates of the logins before the deciding rule, if they hold otherwise`() {
        #expect(rules.admission(of: local(uid: 33)) == .admitted(rule: 2, logins: [0, 1]))
        #expect(
            rules.admission(of: local(uid: 1, groups: [50])) == .admitted(rule: 4, logins: [1, 3]))
    }

    @Test func `wants a login where nothing else holds`() {
        #expect(rules.admission(of: local(uid: 1)) == .mustLogIn(logins: [1]))
    }

    @Test func `refuses where nothing holds`() {
        #expect([IdentityRule]().admission(of: local(uid: 0)) == .refused)
        #expect([rule(.user(www), login: legacy)].admission(of: local(uid: 1)) == .refused)
    }

    @Test func `hides a rule behind one that always holds`() throws {
        let wide = rule(.source(try AddressRange("10.0.0.0/8")))
        let narrow = rule(.source(try AddressRange("10.1.0.0/16")), .user(www))
        #expect(wide.hides(narrow))
        #expect(!narrow.hides(wide))
        #expect(rule().hides(wide))
        #expect(!rule(login: legacy).hides(rule(login: legacy)))
        #expect(rule().hides(rule(login: legacy)))
    }

    /// A rule that hides another never lets it decide, whatever the client: the two definitions
    /// must agree.
    @Test func `never lets a hidden rule decide`() throws {
        let seed = UInt64.random(in: .min ... .max)
        print("a hidden rule never decides: seed \(seed)")
        var random = SystemSeed(seed)
        let conditions: [IdentityRule.Condition] = [
            .user(www), .user(.init(id: 1)), .group(staff, members: [1]),
            .group(.init(id: 1), members: [33]), .source(try AddressRange("127.0.0.0/8")),
            .source(try AddressRange("127.0.0.1")),
        ]
        let clients = [UInt32?.none, 1, 33].flatMap { uid in
            [
                local(uid: uid, groups: [1]), local(uid: uid, groups: [50, 1]),
                from("127.0.0.1", uid: uid), from("127.0.0.2", uid: uid), from("::1", uid: uid),
            ]
        }
        for _ in 0..<5_000 {
            let rules = (0..<2).map { _ in
                IdentityRule(
                    conditions.filter { _ in random.next() % 3 == 0 }, user: UserIndex(0))
            }
            guard rules[0].hides(rules[1]) else { continue }
            for client in clients {
                #expect(rules.admission(of: client) != .admitted(rule: 1, logins: []))
            }
        }
    }
}

/// A linear congruential generator is enough to choose examples.
private struct SystemSeed {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state >> 33
    }
}
