// Whoever may change users on servers of one's own: where its login comes from, and what is asked with it.

import AWS
import ArgumentParser
import Configuration
import Credentials
import Identity
import Rotation
import Transport

/// The flags for an administrator's login; its password is never on a command line.
struct AdministratorOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Who changes the user on the servers.", valueName: "name"))
    var adminUser: String?

    @Option(
        help: ArgumentHelp("The file that holds that one's password.", valueName: "file"))
    var adminPasswordFile: String?

    @Option(
        help: ArgumentHelp(
            "In place of these two: a secret with username and password.", valueName: "id"))
    var adminSecret: String?

    func validate() throws {
        if adminSecret != nil, adminUser != nil || adminPasswordFile != nil {
            throw ValidationError(
                "--admin-secret stands in place of --admin-user and --admin-password-file.")
        }
        guard (adminUser == nil) == (adminPasswordFile == nil) else {
            throw ValidationError("--admin-user and --admin-password-file go together.")
        }
    }

    /// nil: none is given.
    var administrator: Administrator? {
        if let adminUser, let adminPasswordFile {
            return .file(userName: adminUser, path: adminPasswordFile)
        }
        return adminSecret.map { .secret($0) }
    }
}

/// Where an administrator's login comes from.
enum Administrator {
    case file(userName: String, path: String)
    /// A secret with `username` and `password`.
    case secret(String)

    /// - Parameter access: asked for only if it is a secret.
    func credential(
        _ access: () throws(RotationFailure) -> AWSAccess
    ) throws(RotationFailure) -> Credential {
        switch self {
        case .file(let userName, let path):
            do throws(PasswordFile.Unusable) {
                return Credential(userName: userName, secret: try PasswordFile.read(path).secret)
            } catch {
                throw RotationFailure(.unusable, error.reason)
            }
        case .secret(let id): return try Self.credential(ofSecret: id, try access())
        }
    }

    private static func credential(
        ofSecret id: String, _ access: AWSAccess
    ) throws(RotationFailure) -> Credential {
        let region = try access.region(ofSecret: id)
        let version = try access { (client, credential) throws(AWSFailure) in
            try client.secretVersion(.current, of: id, region: region, signedBy: credential)
        }
        guard let version else {
            throw RotationFailure(.unavailable, "secret \(id): no version has AWSCURRENT")
        }
        let login: SecretLogin
        do throws(SecretLogin.Unusable) {
            login = try SecretLogin(
                version.value, userNameKey: "username", passwordKey: "password")
        } catch {
            throw RotationFailure(.unusable, "secret \(id), AWSCURRENT: \(error.reason)")
        }
        guard let userName = login.userName else {
            throw RotationFailure(
                .unusable,
                "secret \(id), AWSCURRENT: wanted the administrator's name under the key username,"
                    + " got none")
        }
        return Credential(userName: userName, secret: login.password)
    }
}

extension AWSAccess {
    /// The region in a secret's ARN, or else the configured one.
    func region(ofSecret id: String) throws(RotationFailure) -> String {
        guard let named = AWSNames.region(ofSecret: id) else { return try region() }
        return named
    }
}

/// An administrator's connection to one server.
struct AdministratorSession {
    let address: HostAndPort
    private let servers: ServerLogins
    private let connection: ServerConnection
    private let admin: String
    /// The server's, as its answer to HELLO has it.
    let version: String

    /// Logs in. - Throws: `denied` if the server refuses it.
    init(
        at address: HostAndPort, _ servers: ServerLogins, _ admin: Credential
    ) throws(RotationFailure) {
        switch try servers.login(at: address, admin) {
        case .accepted(let connection, let hello):
            self.address = address
            self.servers = servers
            self.connection = connection
            self.admin = admin.userName
            version = hello.value("version")?.string ?? ""
        case .refused(let words):
            throw RotationFailure(
                .denied, "\(address): refuses the administrator \(admin.userName): \(words)",
                advice: "see that its name and password are right, and that it is on")
        }
    }

    func ask(_ arguments: [String]) throws(RotationFailure) -> ServerReply {
        try servers.ask(connection, at: address, arguments)
    }

    /// A user as ACL GETUSER describes it; nil: there is none.
    func user(_ name: String) throws(RotationFailure) -> ServerReply? {
        let reply = try ask(["ACL", "GETUSER", name])
        switch reply {
        case .null: return nil
        case .error(let words): throw refusal("ACL GETUSER", words)
        default: break
        }
        guard reply.value("passwords")?.items != nil else {
            throw RotationFailure(
                .unavailable, "\(address): its answer is not an answer to ACL GETUSER")
        }
        return reply
    }

    /// One ACL SETUSER, which takes effect as a whole or not at all.
    func setUser(_ name: String, _ rules: [String]) throws(RotationFailure) {
        guard case .error(var words) = try ask(["ACL", "SETUSER", name] + rules) else { return }
        // The server repeats the rule that it refuses, and a weak password can be guessed from its hash.
        for rule in rules where rule.hasPrefix("#") || rule.hasPrefix("!") {
            words = words.replacing(rule.dropFirst(), with: "…")
        }
        throw refusal("ACL SETUSER", words)
    }

    /// Writes all users down; why that is not possible, or nil: it is done.
    func save() throws(RotationFailure) -> String? {
        guard case .error(let words) = try ask(["ACL", "SAVE"]) else { return nil }
        // Only without an ACL file are users in the configuration file.
        guard words.contains("not configured to use an ACL file") else {
            return "ACL SAVE: \(escaped(words))"
        }
        guard case .error(let words) = try ask(["CONFIG", "REWRITE"]) else { return nil }
        return "it has no ACL file, and CONFIG REWRITE: \(escaped(words))"
    }

    func refusal(_ command: String, _ words: String) -> RotationFailure {
        RotationFailure(
            .denied, "\(address): \(command) as \(admin): \(escaped(words))",
            advice: words.hasPrefix("NOPERM")
                ? "the administrator needs +acl|getuser +acl|setuser +acl|save"
                    + " +config|rewrite" : nil)
    }
}

/// The SHA-256 of a password as a server keeps it, in hexadecimal digits.
func passwordHash(_ password: Secret) -> String {
    sha256(of: password).map { byte in
        let digits = String(byte, radix: 16)
        return byte < 16 ? "0\(digits)" : digits
    }.joined()
}
