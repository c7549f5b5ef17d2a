// Which client becomes which user: a list of rules for each listener, in order.
//
//     rules:      login legacy   unix_user cron   any
//                      │               │           │
//     facts hold?     yes              no         yes      (of what is known before the client speaks)
//                      │                           │
//                 a candidate              the first without a login that holds: the client is this
//
// The first rule whose conditions hold decides; if none holds the client is refused. A rule with a
// login can hold only once the client has logged in, and the client cannot be kept waiting until it
// does. So the rules with a login that stand before the deciding one are candidates: a client that
// never logs in is what the deciding rule says, from its first command; one that logs in as a
// candidate becomes that candidate. If no rule without a login holds, the client begins
// unauthenticated and may only log in. This is what a server does whose default user needs no
// password, or does.
//
// Rejected: waiting for the first command to see whether it is AUTH, and then fixing the identity.
// A client that pings first and logs in later is common (connection pools do), and would have been
// somebody else by the order of two commands.
//
// Invariant: matching is a function of the rules and the facts alone. It looks nothing up: numbers
// of accounts, and who is in a group, are in the rules.

/// One entry of a listener's `identities`: who matches, and which user they become.
package struct IdentityRule: Sendable, Equatable {
    /// A user or group of the operating system.
    package struct Account: Sendable, Equatable {
        package let id: UInt32
        /// As it is written in the configuration; nil if that has the number.
        package let name: String?

        package init(id: UInt32, name: String? = nil) {
            self.id = id
            self.name = name
        }
    }

    /// Something that must hold of a client before it has said anything.
    package enum Condition: Sendable, Equatable {
        /// The kernel attests this user.
        case user(Account)
        /// The kernel attests this group, among the supplementary ones too. Where it attests a user
        /// and no groups (TCP), the user is one of `members`, which is what the group database said
        /// when the rule was read.
        case group(Account, members: Set<UInt32>)
        /// It comes over TCP from one of these addresses.
        case source(AddressRange)
    }

    /// All of them must hold. None: every client.
    package var conditions: [Condition] = []
    /// What the client must log in with besides; nil: nothing.
    package var login: Login?
    package var user = UserIndex(0)
    /// How many clients may be this at the same time; nil: as many as there may be at all.
    package var maximumSessions: Int?

    /// Everybody, as the first user.
    package init() {}

    package init(
        _ conditions: [Condition],
        login: Login? = nil,
        user: UserIndex,
        maximumSessions: Int? = nil
    ) {
        self.conditions = conditions
        self.login = login
        self.user = user
        self.maximumSessions = maximumSessions
    }

    /// Whether the conditions hold; the login, if there is one, is another matter.
    package func holds(of client: Client) -> Bool {
        conditions.allSatisfy { $0.holds(of: client) }
    }

    /// Whether this rule holds of every client that `other` could hold of, so that `other` behind
    /// it never decides anything.
    package func hides(_ other: IdentityRule) -> Bool {
        login == nil
            && conditions.allSatisfy { wide in other.conditions.contains { wide.includes($0) } }
    }

    /// Whether the kernel must be asked who the client is.
    package var needsAccount: Bool {
        conditions.contains { condition in
            switch condition {
            case .user, .group: true
            case .source: false
            }
        }
    }

    /// Whether the kernel must be asked which groups the client is in.
    package var needsGroups: Bool {
        conditions.contains { if case .group = $0 { true } else { false } }
    }

    /// Whom the rule is about, for the log and for the name of its connections on the server:
    /// `unix_user:www-data`, `gid:33+source:10.0.0.0/8`, `login:legacy`, `any`. Printable ASCII
    /// without spaces, whatever the names are.
    package var principal: String {
        var parts = conditions.map { condition in
            switch condition {
            case .user(let account): account.label("unix_user", "uid")
            case .group(let account, _): account.label("unix_group", "gid")
            case .source(let range): "source:\(range)"
            }
        }
        if let login { parts.append("login:\(login.name)") }
        if parts.isEmpty { return "any" }
        let text = parts.joined(separator: "+").utf8
        return String(decoding: text.map { $0 > 0x20 && $0 < 0x7f ? $0 : 0x3f }, as: UTF8.self)
    }
}

extension IdentityRule.Account {
    fileprivate func label(_ nameKey: String, _ numberKey: String) -> String {
        name.map { "\(nameKey):\($0)" } ?? "\(numberKey):\(id)"
    }
}

extension IdentityRule.Condition {
    fileprivate func holds(of client: Client) -> Bool {
        switch self {
        case .user(let account):
            return client.userID == account.id
        case .group(let account, let members):
            guard let userID = client.userID else { return false }
            return client.groupIDs?.contains(account.id) ?? members.contains(userID)
        case .source(let range):
            return client.address.map(range.contains) ?? false
        }
    }

    /// Whether this one holds whenever `other` does.
    fileprivate func includes(_ other: IdentityRule.Condition) -> Bool {
        switch (self, other) {
        case (.user(let one), .user(let two)): one.id == two.id
        case (.group(let one, _), .group(let two, _)): one.id == two.id
        case (.source(let one), .source(let two)): one.contains(two)
        default: false
        }
    }
}

/// What the rules make of a client.
package enum Admission: Sendable, Equatable {
    /// It is what the rule at this position says, and can become one of `logins` by logging in.
    case admitted(rule: Int, logins: [Int])
    /// It is nobody before it has logged in as one of these.
    case mustLogIn(logins: [Int])
    case refused
}

extension [IdentityRule] {
    /// Applies the rules in their order; see the head of this file.
    package func admission(of client: Client) -> Admission {
        var logins: [Int] = []
        for (index, rule) in enumerated() where rule.holds(of: client) {
            guard rule.login != nil else { return .admitted(rule: index, logins: logins) }
            logins.append(index)
        }
        return logins.isEmpty ? .refused : .mustLogIn(logins: logins)
    }
}
