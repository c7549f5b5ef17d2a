// Local logins: hashes as others make them, and the same work whatever the name.

import Glibc
import Identity
import Testing

/// Made by Python: hashlib.scrypt(b"pleaseletmein", salt=b"SodiumChloride", n=16384, r=8, p=1,
/// dklen=64), which is the third vector of RFC 7914, section 12.
private let vector =
    "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8P"
    + "z2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw"

/// printf hunter2 | sha256sum
private let hunter2 = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7"

private func secret(_ text: String) -> Secret { Secret(text.utf8) }

private func sha256(_ text: String) throws -> StoredPassword {
    try #require(StoredPassword(hexadecimalSHA256: text))
}

private func cheapHash(_ password: String) throws -> ScryptHash {
    let cost = try #require(ScryptHash.Cost(checking: 10, r: 1, p: 1))
    return try #require(ScryptHash(of: secret(password), cost: cost))
}

private func scrypt(_ password: String) throws -> StoredPassword {
    .scrypt(try cheapHash(password))
}

extension LoginCheck {
    fileprivate func match(
        _ name: String, _ password: String, files: [String: String] = [:]
    ) -> Int? {
        match(name: Array(name.utf8), secret(password)) { files[$0].map { secret($0) } }
    }
}

@Suite struct `A local login` {
    @Test func `accepts what SHA-256 says`() throws {
        let check = LoginCheck([Login(name: "a", passwords: [try sha256(hunter2)])])
        #expect(check.match("a", "hunter2") == 0)
        #expect(check.match("a", "hunter3") == nil)
        #expect(check.match("a", "") == nil)
        #expect(check.match("b", "hunter2") == nil)
        #expect(check.match("a", hunter2) == nil)
    }

    @Test func `accepts hashes in capital letters`() throws {
        let check = LoginCheck([
            Login(name: "a", passwords: [try sha256(hunter2.uppercased())])
        ])
        #expect(check.match("a", "hunter2") == 0)
    }

    @Test func `agrees with RFC 7914 about scrypt`() throws {
        let check = LoginCheck([
            Login(name: "a", passwords: [.scrypt(try ScryptHash(vector))])
        ])
        #expect(check.match("a", "pleaseletmein") == 0)
        #expect(check.match("a", "pleaseletmeout") == nil)
    }

    @Test func `accepts what is in a file now`() {
        let check = LoginCheck([Login(name: "a", passwords: [.file(path: "/p")])])
        #expect(check.match("a", "one", files: ["/p": "one"]) == 0)
        #expect(check.match("a", "one", files: ["/p": "two"]) == nil)
        #expect(check.match("a", "one") == nil)
        #expect(check.match("a", "") == nil)
    }

    @Test func `accepts each of several passwords`() throws {
        let check = LoginCheck([
            Login(
                name: "a",
                passwords: [
                    try sha256(hunter2), try scrypt("x"), try scrypt("y"), .file(path: "/p"),
                ])
        ])
        for password in ["hunter2", "x", "y", "z"] {
            #expect(check.match("a", password, files: ["/p": "z"]) == 0)
        }
        #expect(check.match("a", "w", files: ["/p": "z"]) == nil)
    }

    @Test func `is the first of its name whose password it is`() throws {
        let check = LoginCheck([
            Login(name: "other", passwords: [try sha256(hunter2)]),
            Login(name: "a", passwords: [try scrypt("x")]),
            Login(name: "a", passwords: [try sha256(hunter2), try scrypt("x")]),
        ])
        #expect(check.match("a", "hunter2") == 2)
        #expect(check.match("a", "x") == 1)
    }

    @Test func `has a name of any bytes`() throws {
        let check = LoginCheck([Login(name: "a", passwords: [try sha256(hunter2)])])
        #expect(check.match(name: [0xff, 0x00], secret("hunter2")) { _ in nil } == nil)
        #expect(check.match(name: [], secret("hunter2")) { _ in nil } == nil)
    }

    @Test func `reads each file at each attempt, whatever the name`() {
        let check = LoginCheck([
            Login(name: "a", passwords: [.file(path: "/a")]),
            Login(name: "b", passwords: [.file(path: "/b"), .file(path: "/c")]),
        ])
        for name in ["a", "b", "nobody"] {
            var read: [String] = []
            _ = check.match(name: Array(name.utf8), secret("x")) { path in
                read.append(path)
                return nil
            }
            #expect(read == ["/a", "/b", "/c"])
        }
    }

    /// The one property of this file that needs a clock: a name that nobody has costs as much as
    /// the costliest one. The factor is what a busy machine can do to CPU time, not what it does.
    @Test func `costs as much for a name that nobody has`() throws {
        let check = LoginCheck([
            Login(name: "a", passwords: [.scrypt(try ScryptHash(vector))]),
            Login(name: "b", passwords: [try sha256(hunter2)]),
        ])
        func time(_ name: String) -> Duration {
            (0..<3).map { _ in cpuTime { _ = check.match(name, "wrong") } }.min() ?? .zero
        }
        let known = time("a")
        for name in ["b", "nobody"] {
            #expect(time(name) * 4 > known, "\(name)")
        }
    }
}

@Suite struct `A scrypt hash` {
    @Test func `prints as it is read, and made ones are read`() throws {
        #expect(try ScryptHash(vector).text == vector)
        let made = try cheapHash("x")
        #expect(try ScryptHash(made.text) == made)
        #expect(made.text.hasPrefix("$scrypt$ln=10,r=1,p=1$"))
    }

    @Test func `has a salt of its own each time`() throws {
        let (one, two) = (try cheapHash("x"), try cheapHash("x"))
        #expect(one.text != two.text)
    }

    @Test func `does not show itself`() throws {
        #expect("\(try ScryptHash(vector))" == "<scrypt hash>")
    }

    @Test(arguments: [
        "", "$", "$scrypt$", "scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$AAAA",
        "$bcrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=14,r=8$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$r=8,ln=14,p=1$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=+4,r=8,p=1$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=14,r=8,p=1$$AAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$AAAA",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAAA==",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAA-",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAAB",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAAA$",
    ])
    func `is not every text`(text: String) {
        #expect(throws: ScryptHash.Mistake.notTheFormat) { try ScryptHash(text) }
    }

    @Test(arguments: [(9, 8, 1), (25, 1, 1), (20, 64, 1), (14, 0, 1), (14, 65, 1), (14, 8, 17)])
    func `has costs that are neither nothing nor too much`(logN: Int, r: Int, p: Int) {
        let text = vector.replacing("ln=14,r=8,p=1", with: "ln=\(logN),r=\(r),p=\(p)")
        #expect(throws: ScryptHash.Mistake.costOutOfRange) { try ScryptHash(text) }
    }

    @Test(arguments: ["", "0", String(repeating: "g", count: 64), hunter2 + "0"])
    func `of SHA-256 has 64 hexadecimal digits`(text: String) {
        #expect(StoredPassword(hexadecimalSHA256: text) == nil)
    }
}

/// CPU time of this thread, which other processes cannot add to.
private func cpuTime(_ body: () -> Void) -> Duration {
    func now() -> Duration {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
    }
    let start = now()
    body()
    return now() - start
}
