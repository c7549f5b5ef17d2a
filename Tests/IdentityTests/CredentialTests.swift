import Identity
import Testing

@Suite struct CredentialTests {
    @Test func `a password may be used at any time`() {
        let password = Credential(userName: "app", secret: Secret("one".utf8))
        #expect(password.kind == .password)
        #expect(password.isUsable(at: .max))
    }

    @Test func `a token may be used until its moment has passed`() {
        let token = Credential(
            userName: "app", secret: Secret("t".utf8), kind: .iamToken(LoginLife()),
            usableUntil: 1_000)
        #expect(token.isUsable(at: 1_000))
        #expect(!token.isUsable(at: 1_001))
    }

    @Test func `a login is renewed well before its limit unless told otherwise`() {
        #expect(LoginLife().renewAfter == .seconds(28_800))
        #expect(LoginLife().limit == .seconds(43_200))
    }
}
