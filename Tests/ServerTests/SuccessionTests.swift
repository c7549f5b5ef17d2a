// One configuration after another: which numbers stay, and which clients may.

import Identity
import Proxy
import Server
import Testing
import Transport

private func user(_ name: String, source: String = "a file", target: Int = 0) -> UpstreamUser {
    UpstreamUser(name: name, userName: name, source: source, target: target)
}

private func uid(_ id: UInt32, _ user: Int) -> IdentityRule {
    IdentityRule([.user(IdentityRule.Account(id: id))], user: UserIndex(user))
}

private func anybody(_ user: Int) -> IdentityRule { IdentityRule([], user: UserIndex(user)) }

private func login(_ name: String, _ user: Int, _ password: UInt8 = 0) -> IdentityRule {
    let hash = [UInt8](repeating: password, count: 32)
    return IdentityRule(
        [], login: Login(name: name, passwords: [.sha256(hash)]), user: UserIndex(user))
}

private func listener(
    _ path: String, _ rules: IdentityRule..., isDedicated: Bool = false
) -> Listener {
    Listener(
        endpoint: .unix(path: path), options: ListenOptions(), rules: rules,
        isDedicated: isDedicated)
}

private func configuration(
    targets: [UpstreamTarget] = [target("cache")], users: [UpstreamUser] = [user("a"), user("b")],
    _ listeners: Listener...
) -> ServerConfiguration {
    ServerConfiguration(
        targets: targets, users: users, listeners: listeners, threads: 1, limits: Limits(),
        maximumSessions: 10)
}

@Suite struct `A configuration that follows another` {
    @Test func `keeps every number if nothing has changed`() {
        let old = configuration(listener("x", uid(1, 0), anybody(1)), listener("y", uid(1, 0)))
        let (new, users) = old.succeeded(by: old)
        #expect(users == [UserIndex(0), UserIndex(1)])
        #expect(new.routesOfListener == old.routesOfListener)
        #expect(new.routes.map(\.isRetired) == [false, false, false])
        #expect(new.users.count == 2 && new.targets.count == 1 && new.listeners.count == 2)
    }

    @Test func `gives what is new the next numbers, and keeps the places of what is gone`() {
        let old = configuration(listener("x", uid(1, 0), uid(2, 1)), listener("y", anybody(0)))
        let next = configuration(
            users: [user("b"), user("c")],
            listener("z", anybody(1)), listener("x", uid(3, 1), uid(2, 0)))
        let (new, users) = old.succeeded(by: next)
        #expect(users == [UserIndex(1), UserIndex(2)])
        #expect(new.users.map(\.name) == ["a", "b", "c"])
        #expect(new.routesOfListener == [[3, 1], [], [4]])
        #expect(new.routes.map(\.isRetired) == [true, false, true, false, false])
        #expect(new.routes.map(\.rule.user.rawValue) == [0, 1, 0, 2, 2])
        #expect(new.isOpen(listener: 0) && !new.isOpen(listener: 1) && new.isOpen(listener: 2))
    }

    @Test func `gives back the old numbers to what comes back`() {
        let both = configuration(listener("x", uid(1, 0), uid(2, 1)), listener("y", anybody(0)))
        let one = configuration(users: [user("b")], listener("x", uid(2, 0)))
        let (again, users) = both.succeeded(by: one).configuration.succeeded(by: both)
        #expect(users == [UserIndex(0), UserIndex(1)])
        #expect(again.routesOfListener == both.routesOfListener)
        #expect(again.routes.count == 3)
        #expect(again.routes.allSatisfy { !$0.isRetired })
    }

    @Test func `has the limits of the new one, and the threads of the old one`() {
        let old = configuration(listener("x", anybody(0)))
        var next = old
        next.threads = 7
        next.gathers = false
        next.limits.maximumPinned = 3
        next.limits.upstreamWait = .seconds(99)
        next.maximumSessions = 5
        let new = old.succeeded(by: next).configuration
        #expect(new.threads == 1 && !new.gathers && new.maximumSessions == 5)
        #expect(new.limits.maximumPinned == 3 && new.limits.upstreamWait == .seconds(99))
    }

    @Test func `tells users of another address or name apart`() {
        let old = configuration(users: [user("a")], listener("x", anybody(0)))
        var renamed = user("a")
        renamed.userName = "other"
        for next in [
            configuration(users: [renamed], listener("x", anybody(0))),
            configuration(
                targets: [target("cache", host: "new.example")], users: [user("a")],
                listener("x", anybody(0))),
        ] {
            let (new, users) = old.succeeded(by: next)
            #expect(users == [UserIndex(1)])
            #expect(new.routes.map(\.isRetired) == [true, false])
            #expect(new.targets[new.users[0].target].host == "cache.example")
        }
    }

    @Test func `replaces what is not what makes it the same`() {
        var before = target("cache")
        before.connectTimeout = .seconds(1)
        let old = configuration(
            targets: [before], users: [user("a", source: "old")],
            listener("x", login("l", 0, 1)))
        let next = configuration(users: [user("a", source: "new")], listener("x", login("l", 0, 2)))
        let (new, _) = old.succeeded(by: next)
        #expect(new.targets.count == 1 && new.targets[0].connectTimeout == .seconds(5))
        #expect(new.users.map(\.source) == ["new"])
        #expect(new.routes.count == 1)
        #expect(new.routes[0].rule.login?.passwords == [.sha256(.init(repeating: 2, count: 32))])
    }

    @Test func `keeps apart what is written twice`() {
        let old = configuration(listener("x", anybody(0)), listener("x", anybody(0)))
        let (new, _) = old.succeeded(by: old)
        #expect(new.routesOfListener == [[0], [1]])
        let (one, _) = old.succeeded(by: configuration(listener("x", anybody(0))))
        #expect(one.routesOfListener == [[0], []])
    }

    @Test func `never changes whom a number in use stands for, whatever follows`() {
        var generator = SystemRandomNumberGenerator()
        let seed = UInt64.random(in: 0 ... .max, using: &generator)
        var state = seed
        func random(_ count: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % count
        }
        func made() -> ServerConfiguration {
            let users = (0...random(4)).map { _ in user("u\(random(6))", target: random(2)) }
            let listeners = (0...random(3)).map { _ in
                Listener(
                    endpoint: .unix(path: "l\(random(4))"), options: ListenOptions(),
                    rules: (0...random(4)).map { _ in uid(UInt32(random(3)), random(users.count)) },
                    isDedicated: random(2) == 0)
            }
            return ServerConfiguration(
                targets: [target("t0"), target("t1", host: "h\(random(3))")], users: users,
                listeners: listeners, threads: 1, limits: Limits(), maximumSessions: 10)
        }
        var current = made()
        for _ in 0..<500 {
            let next = made()
            let (new, users) = current.succeeded(by: next)
            for (old, still) in zip(current.users, new.users) {
                #expect((old.name, old.userName) == (still.name, still.userName), "seed \(seed)")
                #expect(current.targets[old.target].host == new.targets[still.target].host)
            }
            for (old, still) in zip(current.routes, new.routes) {
                #expect(old.listener == still.listener && old.isDedicated == still.isDedicated)
                #expect(old.rule.user == still.rule.user, "seed \(seed)")
            }
            // And what was wanted is there, in its order.
            #expect(zip(next.users, users).allSatisfy { $0.name == new.users[$1.rawValue].name })
            let used = new.routesOfListener.flatMap(\.self)
            #expect(Set(used).count == used.count, "seed \(seed)")
            #expect(used.count == next.listeners.reduce(0) { $0 + $1.rules.count })
            #expect(new.routes.indices.allSatisfy { new.routes[$0].isRetired != used.contains($0) })
            current = new
        }
    }
}

@Suite struct `A client that was let in before` {
    private let first = configuration(listener("x", uid(1, 0), login("l", 1), anybody(1)))

    private func standing(
        _ userID: UInt32?, route: Int?, firstRoute: Int?, logins: [Int] = [], wasAsked: Bool = true
    ) -> Standing {
        Standing(
            listener: 0, client: Client(userID: userID), wasAsked: wasAsked, route: route,
            firstRoute: firstRoute, logins: logins)
    }

    private func review(_ next: ServerConfiguration, _ standing: Standing) -> [Int]? {
        first.succeeded(by: next).configuration.reviewed(standing)
    }

    @Test func `stays what it is by the same rule, or by another that leads to the same user`() {
        let one = standing(1, route: 0, firstRoute: 0)
        #expect(review(first, one) == [])
        #expect(review(configuration(listener("x", anybody(0))), one) == [])
        #expect(review(configuration(listener("x", uid(1, 0), isDedicated: true)), one) == [])
    }

    @Test func `ends when no rule, or one of another user, holds for it`() {
        let one = standing(1, route: 0, firstRoute: 0)
        #expect(review(configuration(listener("x", uid(2, 0))), one) == nil)
        #expect(review(configuration(listener("x", uid(1, 1))), one) == nil)
        #expect(review(configuration(listener("x", uid(1, 1), uid(1, 0))), one) == nil)
        #expect(review(configuration(listener("y", uid(1, 0))), one) == nil)
        #expect(review(configuration(listener("x", login("l", 0))), one) == nil)
    }

    @Test func `that has logged in stays as long as that login leads to that user`() {
        let one = standing(2, route: 1, firstRoute: 2, logins: [1])
        #expect(review(first, one) == [1])
        #expect(review(configuration(listener("x", login("l", 1, 9), anybody(1))), one) == [1])
        #expect(review(configuration(listener("x", login("m", 1), anybody(1))), one) == nil)
        #expect(review(configuration(listener("x", login("l", 0), anybody(1))), one) == nil)
        // What it would be after RESET is gone.
        #expect(review(configuration(listener("x", login("l", 1), anybody(0))), one) == nil)
    }

    @Test func `that may log in may do so only as what is left of it`() {
        let one = standing(2, route: 2, firstRoute: 2, logins: [1])
        #expect(review(configuration(listener("x", anybody(1))), one) == [])
        #expect(review(configuration(listener("x", login("m", 1), anybody(1))), one) == [])
    }

    @Test func `that has not logged in waits on, unless there is nothing left to wait for`() {
        let first = configuration(listener("x", login("l", 0), login("m", 1)))
        let one = standing(2, route: nil, firstRoute: nil, logins: [0, 1])
        func review(_ next: ServerConfiguration) -> [Int]? {
            first.succeeded(by: next).configuration.reviewed(one)
        }
        #expect(review(first) == [0, 1])
        #expect(review(configuration(listener("x", login("m", 1)))) == [1])
        #expect(review(configuration(listener("x", login("n", 1)))) == nil)
        #expect(review(configuration(listener("x", anybody(0)))) == nil)
    }

    @Test func `of whom nobody asked whose it is ends where that could matter`() {
        let first = configuration(listener("x", anybody(0)))
        let one = standing(nil, route: 0, firstRoute: 0, wasAsked: false)
        func review(_ next: ServerConfiguration) -> [Int]? {
            first.succeeded(by: next).configuration.reviewed(one)
        }
        #expect(review(configuration(listener("x", uid(1, 0), anybody(0)))) == [])
        #expect(review(configuration(listener("x", uid(1, 1), anybody(0)))) == nil)
    }
}
