// A declared user of ElastiCache or MemoryDB.
//
// Nobody tells which passwords a user has there, only how many. A login tells of one, where the user is in
// a group of the cache and the cache can be reached from here; where it cannot be told, the passwords are
// left as they are, so that a second run changes nothing.

import AWS
import Configuration
import Identity
import Rotation

/// One user at AWS.
struct CacheAccount: DeclaredAccount {
    struct Options {
        let engine: String
        let keepsOthers: Bool
        /// Sets passwords although nothing shows that they differ.
        let setsPasswords: Bool
        let wait: Duration
    }

    private static let longestPause: Duration = .seconds(10)

    let userName: String
    let access: AccessString
    /// nil: it logs in with IAM.
    let secrets: UserSecrets?
    let options: Options
    let account: CacheUserAccount
    let arn: CacheUserARN
    let login: ServerLogins
    let report: UsersReport

    var place: String { "\(isElastiCache ? "ElastiCache" : "MemoryDB") in \(arn.region)" }

    private var isElastiCache: Bool { arn.service == .elastiCache }

    private var text: String { access.rules.map(\.text).joined(separator: " ") }

    func plan() throws(RotationFailure) -> any UserChange {
        var patience = patience
        try patience.waitUntilReady(
            account.name, note: report.waiting, { () throws(RotationFailure) in try state() })
        let (change, _) = try change()
        if let warning = change.warning { report.warning(self, warning) }
        return change
    }

    func carryOut(_ change: any UserChange) throws(RotationFailure) -> String? {
        var patience = patience
        try patience.change(
            account.name, note: report.waiting,
            state: { () throws(RotationFailure) in try state() },
            { () throws(RotationFailure) in
                let (now, kept) = try self.change()
                guard let planned = change as? CacheUserChange, planned == now else {
                    throw RotationFailure(
                        .superseded,
                        "user \(account.name) was changed by somebody else meanwhile",
                        advice: "look at the changes again")
                }
                try send(now, kept)
            })
        // Applied is what all nodes know of.
        try patience.waitUntilReady(
            account.name, note: report.waiting, { () throws(RotationFailure) in try state() })
        guard change.isNew else { return nil }
        return isElastiCache
            ? "nobody can log in as it before it is in a user group of the cache (aws elasticache"
                + " modify-user-group --user-ids-to-add \(arn.user) --user-group-id …)"
            : "nobody can log in as it before it is in an ACL of the cluster (aws memorydb"
                + " update-acl --user-names-to-add \(arn.user) --acl-name …)"
    }

    private func send(
        _ change: CacheUserChange, _ kept: [Secret]
    ) throws(RotationFailure) {
        let authentication: CacheUserAuthentication? =
            change.setsAuthentication
            ? (secrets.map { .passwords([$0.required] + kept) } ?? .iam) : nil
        if change.isNew {
            try account.create(
                name: userName, engine: options.engine, accessString: text,
                authentication ?? .iam)
        } else {
            try account.modify(accessString: change.changesAccess ? text : nil, authentication)
        }
    }

    /// What is to be changed, and the passwords that stay beside the declared one.
    private func change() throws(RotationFailure) -> (CacheUserChange, kept: [Secret]) {
        let user = try account.find()
        if let user, user.name != userName {
            throw RotationFailure(
                .unusable,
                "user \(account.name): wanted one that logs in as \(userName), got"
                    + " \(escaped(user.name))",
                advice: "give its id with --user-id, or another user_name")
        }
        let actual = user.map {
            CacheUserState(
                access: AccessString($0.accessString, isFromServer: true),
                authentication: $0.authentication, passwordCount: $0.passwordCount)
        }
        var kept: [Secret] = []
        var wanted = CacheUserChange.Authentication.iam
        if let secrets {
            var knowledge = PasswordKnowledge.unknown("")
            if let user, let actual { (knowledge, kept) = look(secrets, user, actual) }
            if actual != nil, case .unknown = knowledge {
                // A rotation that may be under way is not to be disturbed.
                kept = secrets.keepable.prefix(1).map(\.secret)
            }
            wanted = .password(knowledge, kept: kept.count)
        }
        do throws(CacheUserChange.Impossible) {
            return (
                try CacheUserChange(
                    access, wanted, keepsOthers: options.keepsOthers,
                    sets: options.setsPasswords, actual: actual), kept
            )
        } catch {
            throw RotationFailure(.unusable, "user \(account.name): \(error.reason)")
        }
    }

    /// Tries the passwords out.
    private func look(
        _ secrets: UserSecrets, _ user: CacheUser, _ actual: CacheUserState
    ) -> (PasswordKnowledge, kept: [Secret]) {
        guard user.authentication == "password" else { return (.refused, []) }
        guard user.isInGroup else {
            return (
                .unknown(
                    "it is in no \(isElastiCache ? "user group" : "ACL"), and no server knows it"),
                []
            )
        }
        guard AccessPermissions(actual.access).isOn else {
            return (.unknown("it is off, so that no login would be accepted"), [])
        }
        guard login.tls != nil else {
            return (.unknown("no login is tried without TLS"), [])
        }
        do throws(RotationFailure) {
            let isAccepted = try login.login(userName, secrets.required) == .accepted
            var kept: [Secret] = []
            // A user has two passwords at most, the declared one among them.
            for (_, secret) in secrets.keepable
            where kept.isEmpty && user.passwordCount > (isAccepted ? 1 : 0) {
                if try login.login(userName, secret) == .accepted { kept.append(secret) }
            }
            return (isAccepted ? .accepted : .refused, kept)
        } catch {
            return (.unknown(error.reason), [])
        }
    }

    private func state() throws(RotationFailure) -> UserState {
        guard let user = try account.find() else { return .ready }
        guard user.status != "deleting" else {
            throw RotationFailure(.unavailable, "user \(account.name) is being deleted")
        }
        return user.status == "active" ? .ready : .busy(user.status)
    }

    private var patience: Patience {
        Patience(
            until: RotationClock.system.now() + options.wait, longestPause: Self.longestPause,
            clock: .system)
    }
}
