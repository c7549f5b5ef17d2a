import Identity
import Testing

@Suite struct `What a server says to a login` {
    private let credential = Credential(
        userName: "app", secret: Secret("correct-horse-battery".utf8))

    @Test(arguments: [
        "WRONGPASS invalid username-password pair or user is disabled.", "", "ERR app",
        "NOPERM correct", "ERR unknown command 'HELLO'",
    ])
    func `is shown as it is where it does not repeat the secret`(reply: String) {
        #expect(credential.redacting(reply) == reply)
    }

    @Test(arguments: [
        "ERR unknown command `HELLO`, with args beginning with: `2`, `AUTH`, `app`, `correct-horse",
        "ERR unknown command 'HELLO', with args beginning with: '2' 'AUTH' 'app' 'cor",
        "ERR correct-horse-battery is wrong", "ERR correct-h", "correct-horse-battery",
    ])
    func `is not shown as far as it repeats the secret, or a part of it`(reply: String) {
        let shown = credential.redacting(reply)
        #expect(!shown.contains("cor"))
        #expect(shown.contains("not shown"))
    }

    @Test func `is shown where there is no secret to repeat`() {
        let empty = Credential(userName: "app", secret: Secret([]))
        #expect(empty.redacting("ERR no") == "ERR no")
    }
}
