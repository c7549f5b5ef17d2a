import Identity
import Rotation
import Testing

@Suite struct PasswordTests {
    @Test func madePasswordsObeyTheRulesOfAWS() throws {
        let recipe = try PasswordRecipe(length: 16, excluding: "0O1lI")
        var seen: Set<String> = []
        for _ in 0..<2000 {
            let password = recipe.make()
            #expect(PasswordRules.aws.problem(with: password) == nil)
            #expect(password.count == 16)
            #expect(!password.text.contains { "0O1lI".contains($0) })
            seen.insert(password.text)
        }
        #expect(seen.count == 2000)
    }

    @Test(arguments: [
        "short", String(repeating: "x", count: 15), String(repeating: "x", count: 129),
        "a-password-with,one", "a-password-with\"one", "a-password-with/one",
        "a-password-with@one", "a password with blanks", "a-password-with\u{7f}",
        "passwörter-passwort",
        "a-password-with\nlines",
    ])
    func whatAWSRefusesIsRefusedBefore(_ password: String) {
        let problem = PasswordRules.aws.problem(with: Secret(password))
        #expect(problem != nil)
        #expect(problem?.contains(password) == false)
    }

    @Test(arguments: [
        String(repeating: "x", count: 16), String(repeating: "x", count: 128),
        "!#$%&'()*+-.:;<=>?[]^_`{|}~",
    ])
    func whatAWSTakesIsTaken(_ password: String) {
        #expect(PasswordRules.aws.problem(with: Secret(password)) == nil)
    }

    @Test func aRecipeThatMakesWeakPasswordsIsRefused() {
        #expect(throws: RotationFailure.self) { try PasswordRecipe(length: 15, excluding: "") }
        #expect(throws: RotationFailure.self) { try PasswordRecipe(length: 129, excluding: "") }
        #expect(throws: RotationFailure.self) {
            try PasswordRecipe(
                length: 16,
                excluding: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~")
        }
        #expect(throws: RotationFailure.self) {
            try PasswordRecipe(
                length: 128,
                excluding: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
        }
    }
}
