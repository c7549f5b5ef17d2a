/// Which of the configuration's `users` is meant: its position in the order of their names.
/// A small integer, so that the data plane can look a user up without hashing a name.
package struct UserIndex: Hashable, Sendable {
    package let rawValue: Int

    package init(_ rawValue: Int) {
        self.rawValue = rawValue
    }
}
