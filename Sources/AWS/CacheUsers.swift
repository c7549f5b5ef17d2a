// Users of ElastiCache and MemoryDB: what is known of one, and how it is made and changed.
//
//   ElastiCache   query protocol: DescribeUsers, CreateUser, ModifyUser by the user's id
//   MemoryDB      JSON:           DescribeUsers, CreateUser, UpdateUser by the user's name
//
// Both replace the whole list of passwords, at most two, and both are `modifying` until all nodes
// know of it; whoever asks for a change meanwhile is refused (`InvalidUserState`).
//
// Source: the models of botocore 1.43, elasticache 2015-02-02 and memorydb 2021-01-01.

package import Identity

/// Which user it is: its ARN, taken apart.
package struct CacheUserARN: Sendable, Equatable, CustomStringConvertible {
    package enum Service: Sendable, Equatable {
        case elastiCache
        case memoryDB
    }

    package let text: String
    package let service: Service
    package let region: String
    /// ElastiCache's id or MemoryDB's name of the user.
    package let user: String

    package var description: String { text }

    /// `arn:PARTITION:elasticache:REGION:ACCOUNT:user:ID`, `arn:PARTITION:memorydb:REGION:ACCOUNT:user/NAME`;
    /// nil if it is neither.
    package init?(_ text: String) {
        let parts = text.split(separator: ":", maxSplits: 5, omittingEmptySubsequences: false)
        guard parts.count == 6, parts[0] == "arn", AWSNames.isRegion(String(parts[3])) else {
            return nil
        }
        let prefix: String
        switch parts[2] {
        case "elasticache": (service, prefix) = (.elastiCache, "user:")
        case "memorydb": (service, prefix) = (.memoryDB, "user/")
        default: return nil
        }
        guard parts[5].hasPrefix(prefix) else { return nil }
        let user = parts[5].dropFirst(prefix.count)
        // Dots: the built-in users have some.
        let isName = user.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "-"), UInt8(ascii: "."),
                UInt8(ascii: "_"):
                true
            default: false
            }
        }
        guard !user.isEmpty, isName else { return nil }
        self.text = text
        region = String(parts[3])
        self.user = String(user)
    }

    /// One whose account is that of whoever asks; nil if the region or the user's id is none.
    package init?(_ service: Service, region: String, user: String) {
        let isElastiCache = service == .elastiCache
        // AWS keeps ids in lower case.
        self.init(
            "arn:\(Partition(region: region).name):\(isElastiCache ? "elasticache" : "memorydb")"
                + ":\(region)::user\(isElastiCache ? ":" : "/")\(user.lowercased())")
    }
}

/// A user as its service describes it.
package struct CacheUser: Sendable, Equatable {
    /// The name that it logs in with.
    package let name: String
    /// `active`, `modifying` or `deleting`.
    package let status: String
    /// `password`, `iam`, `no-password`.
    package let authentication: String
    package let passwordCount: Int
    package let accessString: String
    /// Whether it is in a user group of ElastiCache or an ACL of MemoryDB: otherwise no server knows it.
    package let isInGroup: Bool

    package init(
        name: String, status: String, authentication: String, passwordCount: Int,
        accessString: String = "", isInGroup: Bool = true
    ) {
        self.name = name
        self.status = status
        self.authentication = authentication
        self.passwordCount = passwordCount
        self.accessString = accessString
        self.isInGroup = isInGroup
    }
}

/// How a user is to prove who it is.
package enum CacheUserAuthentication: Sendable, Equatable {
    case iam
    /// One or two, in place of all that it has.
    case passwords([Secret])
}

extension AWSFailure {
    /// The user is being changed, and cannot be changed again before that is over.
    package var isBusyUser: Bool {
        code == "InvalidUserState" || code == "InvalidUserStateFault"
    }

    /// There is no such user.
    package var isMissingUser: Bool { code == "UserNotFound" || code == "UserNotFoundFault" }
}

extension AWSClient {
    /// Throws `refused` if there is no such user (`isMissingUser`).
    package func describe(
        _ user: CacheUserARN, signedBy credential: AWSCredential
    ) throws(AWSFailure) -> CacheUser {
        let what = "DescribeUsers of \(user)"
        switch user.service {
        case .elastiCache:
            let xml = try query(
                .elastiCache, what,
                [
                    ("Action", Secret("DescribeUsers".utf8)), Self.elastiCacheVersion,
                    ("UserId", Secret(user.user.utf8)),
                ], region: user.region, credential: credential)
            guard let texts = xml?.texts, let name = texts["UserName"],
                let status = texts["Status"]
            else { throw Self.missing(user, what) }
            // Of all lists in the answer only that of the groups has texts for its members.
            return CacheUser(
                name: name, status: status, authentication: texts["Type"] ?? "",
                passwordCount: texts["PasswordCount"].flatMap { Int($0) } ?? 0,
                accessString: texts["AccessString"] ?? "",
                isInGroup: texts["member"].map { !$0.isEmpty } ?? false)
        case .memoryDB:
            var body = WipedBuffer()
            body.appendJSON([("UserName", Secret(user.user.utf8))])
            let answer = try json(
                .memoryDB, "AmazonMemoryDB.DescribeUsers", what, body: body.secret(),
                region: user.region, credential: credential)
            guard case .list(let users)? = answer?["Users"], case .object(let found)? = users.first,
                let name = found.text("Name"), let status = found.text("Status")
            else { throw Self.missing(user, what) }
            var authentication = JSONObject()
            if case .object(let object)? = found["Authentication"] { authentication = object }
            var count = 0
            if case .number(let number)? = authentication["PasswordCount"] {
                count = Int(exactly: number) ?? 0
            }
            var groups: [JSONValue] = []
            if case .list(let list)? = found["ACLNames"] { groups = list }
            return CacheUser(
                name: name, status: status, authentication: authentication.text("Type") ?? "",
                passwordCount: count, accessString: found.text("AccessString") ?? "",
                isInGroup: !groups.isEmpty)
        }
    }

    /// Makes a user; it is of no use before it is in a user group or an ACL.
    ///
    /// - Parameters:
    ///   - name: what it logs in with; MemoryDB's users have no other name than their own.
    ///   - engine: `redis` or `valkey`, for ElastiCache.
    package func create(
        _ user: CacheUserARN, name: String, engine: String, accessString: String,
        _ authentication: CacheUserAuthentication, signedBy credential: AWSCredential
    ) throws(AWSFailure) {
        try change(
            "CreateUser", "CreateUser", user,
            naming: [("UserName", Secret(name.utf8)), ("Engine", Secret(engine.utf8))],
            accessString, authentication, credential)
    }

    /// Changes what is given, and leaves the rest. Live connections stay.
    ///
    /// Throws with `isBusyUser` while an earlier change is under way.
    package func modify(
        _ user: CacheUserARN, accessString: String?, _ authentication: CacheUserAuthentication?,
        signedBy credential: AWSCredential
    ) throws(AWSFailure) {
        try change(
            "ModifyUser", "UpdateUser", user, naming: [], accessString, authentication, credential)
    }

    /// Makes these the user's passwords, one or two, in place of all that it has.
    ///
    /// Throws with `isBusyUser` while an earlier change is under way.
    package func setPasswords(
        _ passwords: [Secret], of user: CacheUserARN, signedBy credential: AWSCredential
    ) throws(AWSFailure) {
        try modify(user, accessString: nil, .passwords(passwords), signedBy: credential)
    }

    /// - Parameters:
    ///   - action: ElastiCache's operation.
    ///   - operation: MemoryDB's.
    ///   - naming: what ElastiCache wants besides its id of a user that is made.
    private func change(
        _ action: String, _ operation: String, _ user: CacheUserARN,
        naming: [(name: String, value: Secret)], _ accessString: String?,
        _ authentication: CacheUserAuthentication?, _ credential: AWSCredential
    ) throws(AWSFailure) {
        switch user.service {
        case .elastiCache:
            var parameters = [
                (name: "Action", value: Secret(action.utf8)), Self.elastiCacheVersion,
                (name: "UserId", value: Secret(user.user.utf8)),
            ]
            parameters += naming
            if let accessString {
                parameters.append(("AccessString", Secret(accessString.utf8)))
            }
            switch authentication {
            case nil: break
            case .iam:
                parameters.append(("AuthenticationMode.Type", Secret("iam".utf8)))
            case .passwords(let passwords):
                parameters.append(("AuthenticationMode.Type", Secret("password".utf8)))
                for (index, password) in passwords.enumerated() {
                    parameters.append(
                        ("AuthenticationMode.Passwords.member.\(index + 1)", password))
                }
            }
            _ = try query(
                .elastiCache, "\(action) of \(user)", parameters, region: user.region,
                credential: credential)
        case .memoryDB:
            var body = WipedBuffer()
            body.append("{\"UserName\":")
            body.appendJSON(user.user)
            if let accessString {
                body.append(",\"AccessString\":")
                body.appendJSON(accessString)
            }
            switch authentication {
            case nil: break
            case .iam: body.append(",\"AuthenticationMode\":{\"Type\":\"iam\"}")
            case .passwords(let passwords):
                body.append(
                    ",\"AuthenticationMode\":{\"Type\":\"password\",\"Passwords\":")
                body.appendJSON(passwords)
                body.append("}")
            }
            body.append("}")
            _ = try json(
                .memoryDB, "AmazonMemoryDB.\(operation)", "\(operation) of \(user)",
                body: body.secret(), region: user.region, credential: credential)
        }
    }

    private static var elastiCacheVersion: (name: String, value: Secret) {
        ("Version", Secret("2015-02-02".utf8))
    }

    private static func missing(_ user: CacheUserARN, _ what: String) -> AWSFailure {
        AWSFailure(.refused, "\(what): there is no such user", code: "UserNotFound")
    }
}
