// What is to be changed about a user, so that it is what the configuration declares.
//
//   declared                      the user as it is          change
//   access_string  ── meaning ──  ACL GETUSER, AWS    ──►    what it may do more, and less
//   credentials    ── SHA-256 ──  its passwords       ──►    those that come, and that go
//
// Compared is what the rules amount to and not how they are written: a server writes them its own way.
// A change that is empty is none: nothing is sent.
//
// On a server a change is one ACL SETUSER, which takes effect as a whole or not at all (Redis, acl.c:
// the rules are applied to a copy). It does not begin with `reset`, which forgets the passwords: they are
// added and removed one by one, so that one that somebody else added meanwhile, as a rotation does, stays.

/// Passwords that a user is to have, as SHA-256 in hexadecimal.
package struct DeclaredPasswords: Sendable, Equatable {
    /// Must be good.
    package let required: String
    /// Stay if the user has them: the label of each, such as AWSPREVIOUS, by hash.
    package let keepable: [String: String]

    package init(required: String, keepable: [String: String] = [:]) {
        self.required = required
        self.keepable = keepable.filter { $0.key != required }
    }
}

/// A user as a server of one's own says that it is.
package struct ServerUserState: Sendable, Equatable {
    package let access: AccessString
    /// SHA-256 in hexadecimal.
    package let passwords: Set<String>
    /// Such as `on` and `sanitize-payload`.
    package let flags: Set<String>
    /// Whether it has permissions for databases.
    package let hasDatabases: Bool

    package init(
        access: AccessString, passwords: Set<String>, flags: Set<String>, hasDatabases: Bool
    ) {
        self.access = access
        self.passwords = passwords
        self.flags = flags
        self.hasDatabases = hasDatabases
    }
}

/// What a user may do more and less, and how it proves who it is.
package protocol UserChange: Sendable {
    var isNew: Bool { get }
    /// From `AccessPermissions.comparison`: what is missing comes, what is extra goes.
    var differences: [AccessDifference] { get }
    /// What changes about its passwords and the like, in words without a secret.
    var authentication: [String] { get }
    /// Nothing is to be done.
    var isEmpty: Bool { get }
}

/// A change of a user on a server of one's own.
package struct ServerUserChange: UserChange, Equatable {
    package let isNew: Bool
    package let differences: [AccessDifference]
    package let authentication: [String]
    /// What stands behind `ACL SETUSER name`.
    package let rules: [String]

    package var isEmpty: Bool { !isNew && differences.isEmpty && authentication.isEmpty }

    /// - Parameters:
    ///   - access: read with the server's dialect, and without problems.
    ///   - passwords: nil for a user that needs none (`nopass`).
    ///   - keepsOthers: leaves it passwords that are not declared.
    ///   - actual: nil: there is no such user.
    package init(
        _ access: AccessString, passwords: DeclaredPasswords, keepsOthers: Bool,
        actual: ServerUserState?, dialect: AccessDialect
    ) {
        let wanted = AccessPermissions(access, dialect: dialect)
        let before = AccessPermissions(
            actual?.access ?? AccessString("", isFromServer: true), dialect: dialect)
        isNew = actual == nil
        differences = wanted.comparison(with: before)

        var authentication: [String] = []
        var words: [String] = []
        let held = actual?.passwords ?? []
        if wanted.needsNoPassword {
            if !before.needsNoPassword {
                authentication.append("any password will do (nopass)")
                words = ["nopass"]
            }
        } else {
            // Nobody's password is known to a user that takes any.
            if before.needsNoPassword { words.append("resetpass") }
            if !held.contains(passwords.required) {
                authentication.append("the declared password becomes one of its passwords")
                words.append("#" + passwords.required)
            }
            let others = held.subtracting([passwords.required])
            let kept = others.filter { passwords.keepable[$0] != nil }
            let surplus = keepsOthers ? [] : others.subtracting(kept).sorted()
            if !surplus.isEmpty {
                let count = surplus.count
                authentication.append(
                    "\(count) other password\(count == 1 ? " is" : "s are") no longer good")
                words += surplus.map { "!" + $0 }
            }
        }
        var sanitizing: [String] = []
        let skips =
            access.rules.last {
                if case .sanitizePayload = $0.rule { true } else { false }
            }?.rule == .sanitizePayload(false)
        let isKnown = actual?.flags.contains { $0.hasSuffix("sanitize-payload") } ?? skips
        if isKnown, (actual?.flags.contains("skip-sanitize-payload") ?? false) != skips {
            authentication.append(
                skips
                    ? "what it restores is no longer checked (skip-sanitize-payload)"
                    : "what it restores is checked (sanitize-payload)")
            sanitizing = [skips ? "skip-sanitize-payload" : "sanitize-payload"]
        }
        self.authentication = authentication

        var none = ["off", "resetkeys"]
        if dialect >= .redis62 { none.append("resetchannels") }
        none.append("-@all")
        if dialect >= .redis7 { none.append("clearselectors") }
        if actual?.hasDatabases == true { none.append("alldbs") }
        rules =
            none
            + access.rules.flatMap { placed in
                switch placed.rule {
                case .reset: none
                // Said once, and elsewhere.
                case .noPassword, .resetPasswords, .sanitizePayload: [String]()
                default: [placed.text]
                }
            } + sanitizing + words
    }
}

/// A user of ElastiCache or MemoryDB as its service says that it is, and what can be found out besides.
package struct CacheUserState: Sendable, Equatable {
    package let access: AccessString
    /// `password`, `iam` or `no-password`.
    package let authentication: String
    package let passwordCount: Int

    package init(access: AccessString, authentication: String, passwordCount: Int) {
        self.access = access
        self.authentication = authentication
        self.passwordCount = passwordCount
    }
}

/// Whether a password is one of a user's, which no service tells but a login does.
package enum PasswordKnowledge: Sendable, Equatable {
    case accepted
    case refused
    /// With the reason.
    case unknown(String)
}

/// A change of a user of ElastiCache or MemoryDB.
package struct CacheUserChange: UserChange, Equatable {
    package enum Authentication: Sendable, Equatable {
        case iam
        /// `kept`: passwords beside the declared one that the user has, as far as is known, and is to
        /// keep, 0 or 1.
        case password(PasswordKnowledge, kept: Int)
    }

    package let isNew: Bool
    package let differences: [AccessDifference]
    package let authentication: [String]
    /// Whether the authentication is to be set: IAM, or the declared password and the kept one.
    package let setsAuthentication: Bool
    /// What could not be found out, for the operator.
    package let warning: String?

    package var isEmpty: Bool { !isNew && differences.isEmpty && !setsAuthentication }
    package var changesAccess: Bool { isNew || !differences.isEmpty }

    /// Why a change cannot be made.
    package struct Impossible: Error, Equatable {
        package let reason: String
    }

    /// - Parameters:
    ///   - keepsOthers: leaves it passwords that are not declared.
    ///   - sets: sets the passwords although nothing shows that they differ.
    ///   - actual: nil: there is no such user.
    package init(
        _ access: AccessString, _ wanted: Authentication, keepsOthers: Bool, sets: Bool,
        actual: CacheUserState?
    ) throws(Impossible) {
        isNew = actual == nil
        differences = AccessPermissions(access).comparison(
            with: AccessPermissions(actual?.access ?? AccessString("", isFromServer: true)))
        guard let actual else {
            setsAuthentication = true
            authentication = [
                wanted == .iam ? "logs in with IAM" : "logs in with the declared password"
            ]
            warning = nil
            return
        }
        guard case .password(let knowledge, let kept) = wanted else {
            setsAuthentication = actual.authentication != "iam"
            authentication =
                setsAuthentication
                ? ["logs in with IAM, and no longer with \(actual.authentication)"] : []
            warning = nil
            return
        }
        guard actual.authentication == "password" else {
            setsAuthentication = true
            authentication = [
                "logs in with the declared password, and no longer with \(actual.authentication)"
            ]
            warning = nil
            return
        }
        var texts: [String] = []
        var others = max(0, actual.passwordCount - kept)
        switch knowledge {
        case .accepted:
            others = max(0, others - 1)
            if sets { texts.append("the declared password becomes one of its passwords") }
        case .refused: texts.append("the declared password becomes one of its passwords")
        case .unknown(let reason):
            guard sets else {
                authentication = []
                setsAuthentication = false
                warning =
                    "whether its password is the declared one cannot be found out: \(reason); give"
                    + " --set-passwords to set it"
                return
            }
            texts.append(
                kept == 0
                    ? "the declared password becomes its only one"
                    : "the declared password becomes one of its two, beside that of a rotation")
        }
        if others > 0, !keepsOthers || !texts.isEmpty {
            guard !keepsOthers else {
                throw Impossible(
                    reason: "its service replaces all passwords of a user at once, and nobody"
                        + " knows the others: leave --keep-other-passwords out, or set the"
                        + " password by hand")
            }
            // Of one that could not be tried out nobody knows whether it is another.
            if knowledge == .accepted || knowledge == .refused {
                texts.append(
                    "\(others) other password\(others == 1 ? " is" : "s are") no longer good")
            }
        }
        warning = nil
        authentication = texts
        setsAuthentication = !texts.isEmpty
    }
}
