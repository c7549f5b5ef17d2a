/// Where a user's secret comes from: what the configuration says, and what a credential provider
/// is built from. Names a place, never holds a secret, and may be printed.
package enum CredentialSource: Hashable, Sendable {
    /// A file whose content, without one trailing newline, is the password. Re-read as it changes.
    case passwordFile(path: String)
    /// An environment variable, read once before any thread starts and then removed.
    case passwordEnvironment(variable: String)
}

extension CredentialSource: CustomStringConvertible {
    package var description: String {
        switch self {
        case .passwordFile(let path): "password_file \(path)"
        case .passwordEnvironment(let variable): "password_env \(variable)"
        }
    }
}
