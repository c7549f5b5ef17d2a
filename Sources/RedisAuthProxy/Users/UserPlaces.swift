// Where the declared users are, and with which passwords: what of the configuration and of the flags of
// `users apply` goes into each account.
//
//   upstream's name is AWS's, or --service   one account at ElastiCache or MemoryDB
//   otherwise                                one on the upstream's server, or on each --server
//
//   credentials      password                     that stay, if the user has them
//   password_file    the file's                   none
//   password_env     the variable's               none
//   secrets_manager  AWSCURRENT's                 AWSPENDING's, AWSPREVIOUS's: a rotation may be under way
//   iam              none; at AWS only

import AWS
import Configuration
import Credentials
import Identity
import Rotation
import Transport

/// A declared user in one place.
protocol DeclaredAccount {
    /// What it logs in with.
    var userName: String { get }
    /// In words.
    var place: String { get }
    var access: AccessString { get }

    /// What is to be changed; nothing is.
    func plan() throws(RotationFailure) -> any UserChange

    /// Makes a change that `plan` gave.
    ///
    /// - Returns: what the operator should know.
    /// - Throws: `superseded` if somebody changed the user meanwhile.
    func carryOut(_ change: any UserChange) throws(RotationFailure) -> String?
}

/// A user's passwords.
struct UserSecrets {
    let required: Secret
    /// By label.
    let keepable: [(label: String, secret: Secret)]

    var hashes: DeclaredPasswords {
        DeclaredPasswords(
            required: passwordHash(required),
            keepable: Dictionary(
                keepable.map { (passwordHash($0.secret), $0.label) },
                uniquingKeysWith: { first, _ in first }))
    }
}

/// Makes accounts of users.
final class UserPlaces {
    private let command: UsersApplyCommand
    private let settings: Settings
    private let environment: PasswordEnvironment
    private var access: AWSAccess?
    private var administrator: Credential?
    private let sessions = AdministratorSessions()

    init(_ command: UsersApplyCommand, _ settings: Settings) {
        self.command = command
        self.settings = settings
        environment = PasswordEnvironment.take(settings.passwordVariables)
    }

    func accounts(
        of index: UserIndex, _ report: UsersReport
    ) throws(RotationFailure) -> [any DeclaredAccount] {
        let user = settings.user(index)
        guard let declared = user.accessString else {
            throw RotationFailure(
                .unusable, "user \(user.name) declares no access_string",
                advice: "write one, or do not name the user")
        }
        let upstream = settings.upstream(of: index)
        let isAWS = isManagedByAWS(host: upstream.address.host)
        guard isAWS || command.service != nil else {
            return try onServers(user, declared, upstream)
        }
        return [try atAWS(user, declared, upstream, report)]
    }

    /// The same user in the same place must be declared the same.
    func checkForContradictions(_ accounts: [any DeclaredAccount]) throws(RotationFailure) {
        for (index, account) in accounts.enumerated() {
            for other in accounts[..<index]
            where other.userName == account.userName && other.place == account.place {
                throw RotationFailure(
                    .unusable,
                    "user \(account.userName) at \(account.place) is declared more than once",
                    advice: "leave access_string to one of the entries, or name that one")
            }
        }
    }

    // MARK: Servers of one's own

    private func onServers(
        _ user: UserSettings, _ declared: AccessString, _ upstream: UpstreamSettings
    ) throws(RotationFailure) -> [any DeclaredAccount] {
        guard !user.credentials.isIAM else {
            throw RotationFailure(
                .unusable,
                "user \(user.name): wanted a password, got iam: \(upstream.address) is a server of"
                    + " one's own, which knows no IAM",
                advice: "give it a password_file or a secret; if the name stands for ElastiCache or"
                    + " MemoryDB, give --service")
        }
        let servers = try servers(upstream)
        guard servers.tls != nil else { throw ServerLogins.wantsTLS(upstream) }
        let admin = try admin()
        guard admin.userName != user.userName else {
            throw RotationFailure(
                .unusable,
                "user \(user.name) is the administrator, \(admin.userName), whom nothing here"
                    + " changes",
                advice: "let another user be the administrator, or do not name this one")
        }
        let secrets = try secrets(of: user)
        return servers.addresses.map { address in
            ServerAccount(
                userName: user.userName, access: declared, passwords: secrets.hashes,
                keepsOthers: command.keepOtherPasswords, address: address,
                session: { [sessions] () throws(RotationFailure) in
                    try sessions.session(at: address, servers, admin)
                })
        }
    }

    private func servers(_ upstream: UpstreamSettings) throws(RotationFailure) -> ServerLogins {
        guard !command.server.isEmpty else { return try ServerLogins(upstream) }
        let named = settings.users.filter {
            command.users.isEmpty ? $0.accessString != nil : command.users.contains($0.name)
        }
        guard Set(named.map(\.upstream)).count == 1 else {
            throw RotationFailure(
                .unusable, "--server: wanted users of one upstream, got several",
                advice: "name the users, those of one upstream at a time")
        }
        var addresses: [HostAndPort] = []
        for url in command.server { addresses.append(try ServerLogins.address(url)) }
        return try ServerLogins(upstream, addresses: addresses)
    }

    private func admin() throws(RotationFailure) -> Credential {
        if let administrator { return administrator }
        guard let given = command.admin.administrator else {
            throw RotationFailure(
                .unusable, "wanted an administrator of the servers, got none",
                advice: "give --admin-user and --admin-password-file, or --admin-secret")
        }
        let credential = try given.credential(aws)
        administrator = credential
        return credential
    }

    // MARK: AWS

    private func atAWS(
        _ user: UserSettings, _ declared: AccessString, _ upstream: UpstreamSettings,
        _ report: UsersReport
    ) throws(RotationFailure) -> any DeclaredAccount {
        var service = managingService(host: upstream.address.host) ?? .elastiCache
        var source: IAMSource?
        if case .iam(let iam) = user.credentials { source = iam }
        if let given = command.service ?? source?.service { service = given }
        if let problem = declared.lint(isAWS: true).first(where: { $0.severity == .error }) {
            throw RotationFailure(
                .unusable, "user \(user.name): access_string: \(problem.message)")
        }
        if declared.rules.contains(where: { $0.rule == .noPassword }) {
            throw RotationFailure(
                .unusable, "user \(user.name): wanted a user that logs in, got nopass",
                advice: "remove it from access_string")
        }
        let access = try aws()
        let region: String
        if let named = command.region ?? source?.region {
            region = named
        } else {
            region = try access.region()
        }
        let id =
            command.userID.map { $0.split(separator: "=") }.first { $0[0] == user.name }
            .map { String($0[1]) } ?? user.userName
        guard
            let arn = CacheUserARN(
                service == .elastiCache ? .elastiCache : .memoryDB, region: region, user: id)
        else {
            throw RotationFailure(
                .unusable,
                "user \(user.name): wanted a user's id of letters, digits and hyphens, got"
                    + " \(escaped(id))",
                advice: "give --user-id \(user.name)=ID, or another user_name")
        }
        let secrets = source == nil ? try secrets(of: user) : nil
        if let secrets, let problem = PasswordRules.aws.problem(with: secrets.required) {
            throw RotationFailure(.unusable, "user \(user.name): its password: \(problem)")
        }
        return CacheAccount(
            userName: user.userName, access: declared, secrets: secrets,
            options: CacheAccount.Options(
                engine: command.engine.rawValue, keepsOthers: command.keepOtherPasswords,
                setsPasswords: command.setPasswords, wait: command.wait.duration),
            account: CacheUserAccount(arn, access: access), arn: arn,
            login: try ServerLogins(upstream), report: report)
    }

    private func aws() throws(RotationFailure) -> AWSAccess {
        if let access { return access }
        let made = try AWSAccess(profile: command.profile)
        access = made
        return made
    }

    // MARK: Passwords

    private func secrets(of user: UserSettings) throws(RotationFailure) -> UserSecrets {
        switch user.credentials {
        case .passwordFile(let path):
            do throws(PasswordFile.Unusable) {
                return UserSecrets(required: try PasswordFile.read(path).secret, keepable: [])
            } catch {
                throw RotationFailure(.unusable, "user \(user.name): \(error.reason)")
            }
        case .passwordEnvironment(let variable):
            guard let secret = environment.secret(named: variable), secret.count > 0 else {
                throw RotationFailure(
                    .unusable,
                    "user \(user.name): wanted the environment variable \(variable), got none",
                    advice: "set it to the password")
            }
            return UserSecrets(required: secret, keepable: [])
        case .secretsManager(let source): return try secrets(of: user, source)
        case .iam:
            throw RotationFailure(.unusable, "user \(user.name): iam has no password")
        }
    }

    private func secrets(
        of user: UserSettings, _ source: SecretsManagerSource
    ) throws(RotationFailure) -> UserSecrets {
        let access = try aws()
        let region: String
        if let named = source.region ?? command.region {
            region = named
        } else {
            region = try access.region(ofSecret: source.secretID)
        }
        func password(_ stage: SecretStage) throws(RotationFailure) -> Secret? {
            let version = try access { (client, credential) throws(AWSFailure) in
                try client.secretVersion(
                    stage, of: source.secretID, region: region, signedBy: credential)
            }
            guard let version else { return nil }
            let login: SecretLogin
            do throws(SecretLogin.Unusable) {
                login = try SecretLogin(
                    version.value, userNameKey: source.userNameKey,
                    passwordKey: source.passwordKey)
            } catch {
                // Half a rotation may have anything in it.
                guard stage == .current else { return nil }
                throw RotationFailure(
                    .unusable, "secret \(source.secretID), \(stage.rawValue): \(error.reason)")
            }
            if stage == .current, let name = login.userName, name != user.userName {
                throw RotationFailure(
                    .unusable,
                    "user \(user.name): wanted the secret of \(user.userName), got that of"
                        + " \(escaped(name)) in \(source.secretID)",
                    advice: "write user_name so, or name the right secret")
            }
            return login.password
        }
        guard let current = try password(.current) else {
            throw RotationFailure(
                .unavailable, "secret \(source.secretID): no version has AWSCURRENT")
        }
        var keepable: [(label: String, secret: Secret)] = []
        for stage in [SecretStage.pending, .previous] {
            if let secret = try password(stage), secret != current {
                keepable.append((stage.rawValue, secret))
            }
        }
        return UserSecrets(required: current, keepable: keepable)
    }
}

/// One connection of the administrator to each server, made when it is first needed.
final class AdministratorSessions {
    private var sessions: [String: AdministratorSession] = [:]

    func session(
        at address: HostAndPort, _ servers: ServerLogins, _ admin: Credential
    ) throws(RotationFailure) -> AdministratorSession {
        if let session = sessions["\(address)"] { return session }
        let session = try AdministratorSession(at: address, servers, admin)
        sessions["\(address)"] = session
        return session
    }
}
