import Credentials
import Glibc
import Testing

@Suite struct PasswordEnvironmentTests {
    @Test func `a taken variable is gone from the environment and from the memory it was in`() {
        setenv("RAP_TEST_TAKEN", "open sesame", 1)
        let memory = getenv("RAP_TEST_TAKEN")!
        let taken = PasswordEnvironment.take(["RAP_TEST_TAKEN"])
        #expect(getenv("RAP_TEST_TAKEN") == nil)
        #expect(memory[0] == 0)
        #expect(
            taken.secret(named: "RAP_TEST_TAKEN")?.withBytes { Array($0) }
                == Array("open sesame".utf8))
    }

    @Test func `a variable that is not set has no secret`() {
        let taken = PasswordEnvironment.take(["RAP_TEST_NEVER_SET"])
        #expect(taken.secret(named: "RAP_TEST_NEVER_SET") == nil)
    }
}
