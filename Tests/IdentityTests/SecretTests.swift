// What a secret lets out, and what it does not.

import Identity
import Testing

@Suite struct SecretTests {
    private let secret = Secret("hunter2".utf8)

    @Test func `the bytes are lent unchanged`() {
        #expect(secret.withBytes { Array($0) } == Array("hunter2".utf8))
        #expect(secret.count == 7)
        #expect(Secret([]).withBytes { Array($0) } == [])
        let bytes: [UInt8] = [0, 255, 10]
        #expect(bytes.withUnsafeBytes { Secret(copying: $0) } == Secret(bytes))
    }

    @Test func `nothing that prints shows the bytes`() {
        var dumped = ""
        dump(secret, to: &dumped)
        let credential = Credential(userName: "app", secret: secret)
        dump(credential, to: &dumped)
        let snapshot = CredentialSnapshot(version: 3, credential: credential, failure: nil)
        dump(snapshot, to: &dumped)
        for text in [
            "\(secret)", String(reflecting: secret), "\([secret])", "\(Optional(secret) as Any)",
            "\(credential)", String(reflecting: credential), "\(snapshot)",
            String(reflecting: snapshot), dumped,
        ] {
            #expect(!text.contains("hunter2"), "\(text)")
            #expect(text.contains("<secret>"), "\(text)")
        }
    }

    @Test func `equal bytes are equal secrets`() {
        #expect(secret == Secret("hunter2".utf8))
        for other in ["", "hunter", "hunter22", "hunter3", "Hunter2"] {
            #expect(secret != Secret(other.utf8), "\(other)")
        }
    }

    @Test func `a source names a place`() {
        #expect(
            CredentialSource.passwordFile(path: "/run/app").description == "password_file /run/app")
        #expect(
            CredentialSource.passwordEnvironment(variable: "APP").description == "password_env APP")
    }
}
