import Identity
import Server
import Testing

private let second: UInt64 = 1_000_000_000
private let milliseconds: UInt64 = 1_000_000

@Suite struct `The failures of one source` {
    private let source = LoginSource.user(33)

    @Test func `make the answers later and later, up to two seconds`() {
        var failures = LoginFailures()
        var delays: [UInt64] = []
        for _ in 0..<8 {
            let isBegun = failures.begin(source, at: second)
            #expect(isBegun)
            delays.append(failures.fail(source, at: second) / milliseconds)
            failures.end(source)
        }
        #expect(delays == [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000])
    }

    @Test func `are forgotten after a minute without one`() {
        var failures = LoginFailures()
        for _ in 0..<8 {
            _ = failures.begin(source, at: second)
            _ = failures.fail(source, at: second)
            failures.end(source)
        }
        for (now, delay) in [(61, 2_000), (122, 100)] as [(UInt64, UInt64)] {
            let isBegun = failures.begin(source, at: now * second)
            #expect(isBegun)
            let held = failures.fail(source, at: now * second)
            #expect(held == delay * milliseconds)
            failures.end(source)
        }
    }

    @Test func `are not forgotten for attempts that go on`() {
        var failures = LoginFailures()
        for minute in 0..<8 {
            let now = UInt64(minute) * 59 * second
            _ = failures.begin(source, at: now)
            _ = failures.fail(source, at: now)
            failures.end(source)
        }
        let delay = failures.fail(source, at: 8 * 59 * second)
        #expect(delay == 2_000 * milliseconds)
    }

    @Test func `keep a few attempts under way and the others waiting`() {
        var failures = LoginFailures()
        for _ in 0..<LoginFailures.parallel {
            let isFirst = failures.begin(source, at: second)
            #expect(isFirst)
            _ = failures.fail(source, at: second)
        }
        let isSecond = failures.begin(source, at: second)
        #expect(!isSecond)
        let isThird = failures.begin(.user(34), at: second)
        #expect(isThird)
        failures.end(source)
        let isFourth = failures.begin(source, at: second)
        #expect(isFourth)
        let isFifth = failures.begin(source, at: second)
        #expect(!isFifth)
    }

    @Test func `leave nothing behind where there were none`() {
        var failures = LoginFailures()
        for user in 0..<100 {
            let isBegun = failures.begin(.user(UInt32(user)), at: second)
            #expect(isBegun)
            failures.end(.user(UInt32(user)))
        }
        #expect(failures.count == 0)
    }

    @Test func `are remembered of so many sources and no more`() {
        var failures = LoginFailures()
        for user in 0..<UInt32(2 * LoginFailures.sourceLimit) {
            let source = LoginSource.user(user)
            let isBegun = failures.begin(source, at: second + UInt64(user))
            #expect(isBegun)
            _ = failures.fail(source, at: second + UInt64(user))
            failures.end(source)
            #expect(failures.count <= LoginFailures.sourceLimit)
        }
        #expect(failures.count == LoginFailures.sourceLimit)
        // The latest are those that are remembered.
        let last = LoginSource.user(UInt32(2 * LoginFailures.sourceLimit - 1))
        let delay = failures.fail(last, at: second)
        #expect(delay == 200 * milliseconds)
    }

    @Test func `do not matter to a crowd that is all under way`() {
        var failures = LoginFailures()
        for user in 0..<UInt32(LoginFailures.sourceLimit) {
            let isFirst = failures.begin(.user(user), at: second)
            #expect(isFirst)
        }
        let isSecond = failures.begin(.user(.max), at: second)
        #expect(isSecond)
        #expect(failures.count == LoginFailures.sourceLimit)
        let delay = failures.fail(.user(.max), at: second)
        #expect(delay == LoginFailures.longestDelay)
        failures.end(.user(.max))
        #expect(failures.count == LoginFailures.sourceLimit)
    }

    @Test func `belong to the user if one is attested, and to the address if not`() throws {
        let one = try #require(IPAddress("2001:db8:1:2:3::4"))
        let two = try #require(IPAddress("2001:db8:1:2:ffff::"))
        let v4 = try #require(IPAddress("10.0.0.1"))
        #expect(LoginSource(Client(userID: 7, address: one)) == .user(7))
        #expect(LoginSource(Client(address: one)) == LoginSource(Client(address: two)))
        #expect(LoginSource(Client(address: v4)) == .address(v4))
        #expect(LoginSource(Client()) == .unknown)
    }
}
