// A declared user on one server of one's own.

import Configuration
import Identity
import Rotation

/// One user on one server, changed by an administrator.
struct ServerAccount: DeclaredAccount {
    let userName: String
    let access: AccessString
    let passwords: DeclaredPasswords
    let keepsOthers: Bool
    let address: HostAndPort
    let session: () throws(RotationFailure) -> AdministratorSession

    var place: String { "\(address)" }

    func plan() throws(RotationFailure) -> any UserChange {
        try change(try session())
    }

    func carryOut(_ change: any UserChange) throws(RotationFailure) -> String? {
        let session = try session()
        let now = try self.change(session)
        // Whoever confirmed the one did not confirm the other.
        guard let planned = change as? ServerUserChange, planned == now else {
            throw RotationFailure(
                .superseded,
                "user \(userName) at \(address) was changed by somebody else meanwhile",
                advice: "look at the changes again")
        }
        try session.setUser(userName, now.rules)
        return try session.save().map { "this is lost when the server restarts: \($0)" }
    }

    private func change(
        _ session: AdministratorSession
    ) throws(RotationFailure) -> ServerUserChange {
        let dialect = AccessDialect(version: session.version)
        let wanted = access.reread(dialect)
        if let problem = wanted.problems.first {
            throw RotationFailure(
                .unusable,
                "user \(userName): \(address) (\(session.version)) does not understand its"
                    + " access_string: \(problem.message)",
                advice: "write it for this server's version")
        }
        return ServerUserChange(
            wanted, passwords: passwords, keepsOthers: keepsOthers,
            actual: try session.user(userName).map(ServerUserState.init(ofUser:)),
            dialect: dialect)
    }
}
