// A user of servers of one's own: an administrator's login sets its passwords with ACL SETUSER.
//
// Each server has its own users, replicas too, so that each is asked. Passwords go there as their
// SHA-256, which is how a server keeps them (Redis, acl.c, ACLSetUser, `#`): none is on the wire, in a
// MONITOR or a log. One ACL SETUSER is atomic, and live connections stay logged in.
//
// What was set is lost with the server's process unless it is written down: ACL SAVE where the server
// has an ACL file, or CONFIG REWRITE where it has a configuration file with users.

import Identity
import Rotation

/// One ACL user on some servers.
struct ServerUser: RotatedUser {
    let loginName: String
    let servers: ServerLogins
    let admin: Credential

    var name: String { "\(loginName) at \(servers.name)" }
    var rules: PasswordRules { .server }

    func userName() throws(RotationFailure) -> String? { loginName }

    func state() throws(RotationFailure) -> UserState {
        for address in servers.addresses {
            _ = try passwords(try AdministratorSession(at: address, servers, admin))
        }
        return .ready
    }

    func setPasswords(_ passwords: [Secret]) throws(RotationFailure) -> PasswordChange {
        let wanted = passwords.map(passwordHash)
        var isChanged = false
        var unsaved: [String] = []
        for address in servers.addresses {
            let session = try AdministratorSession(at: address, servers, admin)
            if Set(try self.passwords(session)) != Set(wanted) {
                try session.setUser(loginName, ["resetpass"] + wanted.map { "#\($0)" })
                isChanged = true
            }
            // Also when nothing was changed: whoever changed it may not have come to this.
            if let reason = try session.save() { unsaved.append("\(address): \(reason)") }
        }
        guard unsaved.isEmpty else {
            return .changedUntilRestart(unsaved.joined(separator: "; "))
        }
        return isChanged ? .changed : .unchanged
    }

    /// The hashes of the user's passwords.
    private func passwords(_ session: AdministratorSession) throws(RotationFailure) -> [String] {
        guard let user = try session.user(loginName) else {
            throw RotationFailure(
                .unavailable, "\(session.address): there is no user \(loginName)",
                advice: "make it first, with the commands and keys that it may use")
        }
        if user.value("flags")?.items?.contains(where: { $0.string == "nopass" }) == true {
            throw RotationFailure(
                .unusable,
                "\(session.address): user \(loginName) is one without a password (nopass)",
                advice: "give it a password first, by hand")
        }
        return user.value("passwords")?.items?.compactMap(\.string) ?? []
    }
}
