// Users of ElastiCache and MemoryDB: what is known of one, and its passwords.
//
//   ElastiCache   query protocol: DescribeUsers, ModifyUser by the user's id
//   MemoryDB      JSON:           DescribeUsers, UpdateUser by the user's name
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

    package init(name: String, status: String, authentication: String, passwordCount: Int) {
        self.name = name
        self.status = status
        self.authentication = authentication
        self.passwordCount = passwordCount
    }
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
            return CacheUser(
                name: name, status: status, authentication: texts["Type"] ?? "",
                passwordCount: texts["PasswordCount"].flatMap { Int($0) } ?? 0)
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
            return CacheUser(
                name: name, status: status, authentication: authentication.text("Type") ?? "",
                passwordCount: count)
        }
    }

    /// Makes these the user's passwords, one or two, in place of all that it has.
    ///
    /// Throws with `isBusyUser` while an earlier change is under way.
    package func setPasswords(
        _ passwords: [Secret], of user: CacheUserARN, signedBy credential: AWSCredential
    ) throws(AWSFailure) {
        switch user.service {
        case .elastiCache:
            var parameters = [
                (name: "Action", value: Secret("ModifyUser".utf8)), Self.elastiCacheVersion,
                (name: "UserId", value: Secret(user.user.utf8)),
            ]
            for (index, password) in passwords.enumerated() {
                parameters.append(("Passwords.member.\(index + 1)", password))
            }
            _ = try query(
                .elastiCache, "ModifyUser of \(user)", parameters, region: user.region,
                credential: credential)
        case .memoryDB:
            var body = WipedBuffer()
            body.append("{\"UserName\":")
            body.appendJSON(user.user)
            body.append(",\"AuthenticationMode\":{\"Type\":\"password\",\"Passwords\":")
            body.appendJSON(passwords)
            body.append("}}")
            _ = try json(
                .memoryDB, "AmazonMemoryDB.UpdateUser", "UpdateUser of \(user)",
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
