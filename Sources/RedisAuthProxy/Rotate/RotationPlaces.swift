// Whose password a secret has, told from the secret and from what the command line or the function's
// environment says besides.
//
//   user_arn in the secret, or --user-arn   ElastiCache or MemoryDB; servers, if any, try logins out
//   otherwise                               servers of one's own, with an administrator's login
//
//   servers          --server, or host and port in the secret
//   administrator    --admin-user with its password file, --admin-secret, or masterarn in the secret

import AWS
import Configuration
import Identity
import Rotation
import Transport

/// What is known of users and servers beside the secret.
struct RotationPlaces {
    var userARN: String?
    /// For a secret that has no user's name.
    var userName: String?
    /// `rediss://HOST[:PORT]`
    var serverURLs: [String] = []
    var serverName: String?
    var tls = TLSSettings()
    var administrator: Administrator?
    let access: AWSAccess

    /// Whose password the secret has, and where to try it out.
    func target(_ document: SecretDocument) throws(RotationFailure) -> RotationTarget {
        let servers = try servers(document)
        if let arn = try arn(document) {
            return RotationTarget(user: CacheUserAccount(arn, access: access), login: servers)
        }
        guard let servers else {
            throw RotationFailure(
                .unusable,
                "wanted a user_arn of ElastiCache or MemoryDB or a server, got neither",
                advice: "put user_arn into the secret, or give --user-arn or --server")
        }
        guard let userName = document.userName ?? userName else {
            throw RotationFailure(
                .unusable, "wanted the name of the user, got none",
                advice: "put username into the secret, or give --user")
        }
        let user = ServerUser(
            loginName: userName, servers: servers, admin: try admin(document))
        guard userName != user.admin.userName else {
            throw RotationFailure(
                .unusable,
                "the administrator is the user itself, \(userName), whose login would be needed to"
                    + " go on",
                advice: "let another user be the administrator")
        }
        return RotationTarget(user: user, login: servers)
    }

    private func arn(_ document: SecretDocument) throws(RotationFailure) -> CacheUserARN? {
        let stored = document.text("user_arn")
        guard let text = userARN ?? stored else { return nil }
        if let userARN, let stored, userARN != stored {
            throw RotationFailure(
                .unusable, "the user is \(userARN), and by user_arn in the secret \(stored)")
        }
        guard let arn = CacheUserARN(text) else {
            throw RotationFailure(
                .unusable,
                "user_arn: wanted arn:aws:elasticache:REGION:ACCOUNT:user:ID or"
                    + " arn:aws:memorydb:REGION:ACCOUNT:user/NAME, got \(escaped(text))")
        }
        return arn
    }

    private func servers(_ document: SecretDocument) throws(RotationFailure) -> ServerLogins? {
        var addresses: [HostAndPort] = []
        for url in serverURLs { addresses.append(try ServerLogins.address(url)) }
        if addresses.isEmpty, let host = document.text("host") {
            let shown = host.contains(":") && !host.hasPrefix("[") ? "[\(host)]" : host
            let port = document.text("port") ?? "6379"
            addresses = [try ServerLogins.address("rediss://\(shown):\(port)")]
        }
        guard !addresses.isEmpty else { return nil }
        do throws(TLSContextError) {
            return ServerLogins(
                addresses: addresses, serverName: serverName, tls: try TLSContext(tls),
                connectionName: "redis-auth-proxy-rotate")
        } catch {
            throw RotationFailure(.unusable, "\(error)")
        }
    }

    private func admin(_ document: SecretDocument) throws(RotationFailure) -> Credential {
        guard let administrator = administrator ?? document.text("masterarn").map({ .secret($0) })
        else {
            throw RotationFailure(
                .unusable, "wanted an administrator of the servers, got none",
                advice: "give --admin-user and --admin-password-file, --admin-secret, or masterarn"
                    + " in the secret")
        }
        return try administrator.credential { access }
    }
}
