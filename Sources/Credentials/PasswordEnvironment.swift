// Passwords that came in the environment: taken once, before any thread exists, and then gone.
//
// getenv and unsetenv are not safe beside other threads (environ(7), attributes(7)), and a variable
// that stays is inherited by children and readable in /proc/PID/environ. That file shows the memory
// the kernel filled at exec, which unsetenv leaves as it is: so the value is overwritten first.

import Glibc
package import Identity

/// The secrets that were found in the environment.
package struct PasswordEnvironment: Sendable {
    private let secrets: [String: Secret]

    /// No variables: for a process whose users have none.
    package init() {
        secrets = [:]
    }

    private init(secrets: [String: Secret]) {
        self.secrets = secrets
    }

    /// Copies the named variables, overwrites their values in place and removes them.
    ///
    /// Call it first thing in `main`, before any thread starts. A variable that is not set is not
    /// in the result; `secret(named:)` tells.
    package static func take(_ names: some Sequence<String>) -> PasswordEnvironment {
        var secrets: [String: Secret] = [:]
        for name in names {
            guard let value = getenv(name) else { continue }
            let length = strlen(value)
            secrets[name] = Secret(copying: UnsafeRawBufferPointer(start: value, count: length))
            explicit_bzero(value, length)
            unsetenv(name)
        }
        return PasswordEnvironment(secrets: secrets)
    }

    /// The value that the variable had; nil if it was not set.
    package func secret(named name: String) -> Secret? { secrets[name] }
}
