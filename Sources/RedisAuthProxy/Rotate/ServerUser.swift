// A user of servers of one's own: an administrator's login sets its passwords with ACL SETUSER.
//
// Each server has its own users, replicas too, so that each is asked. Passwords go there as their
// SHA-256, which is how a server keeps them (Redis, acl.c, ACLSetUser, `#`): none is on the wire, in a
// MONITOR or a log. One ACL SETUSER is atomic, and live connections stay logged in.
//
// What was set is lost with the server's process unless it is written down: ACL SAVE where the server
// has an ACL file, or CONFIG REWRITE where it has a configuration file with users.

import Configuration
import Identity
import Rotation
import Transport

/// One ACL user on some servers.
struct ServerUser: RotatedUser {
    let loginName: String
    let servers: RotationServers
    let admin: Credential

    var name: String { "\(loginName) at \(servers.name)" }
    var rules: PasswordRules { .server }

    func userName() throws(RotationFailure) -> String? { loginName }

    func state() throws(RotationFailure) -> UserState {
        for address in servers.addresses { _ = try passwords(session(at: address)) }
        return .ready
    }

    func setPasswords(_ passwords: [Secret]) throws(RotationFailure) -> PasswordChange {
        let wanted = passwords.map { sha256(of: $0).map(hex).joined() }
        var isChanged = false
        var unsaved: [String] = []
        for address in servers.addresses {
            let session = try session(at: address)
            if Set(try self.passwords(session)) != Set(wanted) {
                let reply = try session.ask(
                    ["ACL", "SETUSER", loginName, "resetpass"] + wanted.map { "#\($0)" })
                if case .error(let words) = reply { throw session.refusal("ACL SETUSER", words) }
                isChanged = true
            }
            // Also when nothing was changed: whoever changed it may not have come to this.
            if let reason = try save(session) { unsaved.append("\(address): \(reason)") }
        }
        guard unsaved.isEmpty else {
            return .changedUntilRestart(unsaved.joined(separator: "; "))
        }
        return isChanged ? .changed : .unchanged
    }

    /// The hashes of the user's passwords.
    private func passwords(_ session: Session) throws(RotationFailure) -> [String] {
        let reply = try session.ask(["ACL", "GETUSER", loginName])
        switch reply {
        case .null:
            throw RotationFailure(
                .unavailable, "\(session.address): there is no user \(loginName)",
                advice: "make it first, with the commands and keys that it may use")
        case .error(let words): throw session.refusal("ACL GETUSER", words)
        default: break
        }
        guard let hashes = reply.value("passwords")?.items?.compactMap(\.string) else {
            throw RotationFailure(
                .unavailable, "\(session.address): its answer is not an answer to ACL GETUSER")
        }
        if reply.value("flags")?.items?.contains(where: { $0.string == "nopass" }) == true {
            throw RotationFailure(
                .unusable,
                "\(session.address): user \(loginName) is one without a password (nopass)",
                advice: "give it a password first, by hand")
        }
        return hashes
    }

    /// Why it could not be written down; nil: it is.
    private func save(_ session: Session) throws(RotationFailure) -> String? {
        guard case .error(let words) = try session.ask(["ACL", "SAVE"]) else { return nil }
        // Only without an ACL file are users in the configuration file.
        guard words.contains("not configured to use an ACL file") else {
            return "ACL SAVE: \(escaped(words))"
        }
        guard case .error(let words) = try session.ask(["CONFIG", "REWRITE"]) else { return nil }
        return "it has no ACL file, and CONFIG REWRITE: \(escaped(words))"
    }

    // MARK: The administrator's connections

    private struct Session {
        let address: HostAndPort
        let servers: RotationServers
        let connection: ServerConnection
        let admin: String

        func ask(_ arguments: [String]) throws(RotationFailure) -> ServerReply {
            try servers.ask(connection, at: address, arguments)
        }

        func refusal(_ command: String, _ words: String) -> RotationFailure {
            RotationFailure(
                .denied, "\(address): \(command) as \(admin): \(escaped(words))",
                advice: words.hasPrefix("NOPERM")
                    ? "the administrator needs +acl|getuser +acl|setuser +acl|save"
                        + " +config|rewrite" : nil)
        }
    }

    private func session(at address: HostAndPort) throws(RotationFailure) -> Session {
        switch try servers.login(at: address, admin) {
        case .accepted(let connection):
            return Session(
                address: address, servers: servers, connection: connection, admin: admin.userName)
        case .refused(let words):
            throw RotationFailure(
                .denied, "\(address): refuses the administrator \(admin.userName): \(words)",
                advice: "see that its name and password are right, and that it is on")
        }
    }
}

private func hex(_ byte: UInt8) -> String {
    let digits = String(byte, radix: 16)
    return byte < 16 ? "0\(digits)" : digits
}
