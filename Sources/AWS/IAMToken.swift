// The tokens that stand in for a password: presigned URLs for an action called `connect` that no
// endpoint of AWS serves. The server recomputes the signature from what the token says.
//
//   my-cache/?Action=connect&User=app&[ResourceType=ServerlessCache&]X-Amz-Algorithm=…
//   host:port/?Action=connect&DBUser=app&X-Amz-Algorithm=…                             RDS
//
// What is signed as the host is the cache's name and not its endpoint. AWS keeps names of caches
// and ids of users in lower case, so both are lowered here; a token with an upper-case name in it
// is refused.
//
// Source: ElastiCache, "Authenticating with IAM"; MemoryDB, "Authenticating with IAM"; RDS, "IAM
// database authentication".

package import Identity

/// What a token is for.
package struct IAMTokenRequest: Sendable, Hashable {
    /// For how long every token is good, by AWS's rule, in seconds.
    package static let lifeSeconds = 900

    /// Which service checks it.
    package enum Target: Sendable, Hashable {
        /// A replication group's id, or a serverless cache's name.
        case elastiCache(name: String, isServerless: Bool)
        /// A cluster's name.
        case memoryDB(name: String)
        case database(host: String, port: UInt16)
    }

    package let target: Target
    /// As it is signed: in lower case for caches.
    package let user: String
    package let region: String

    /// - Throws: `Unusable` for a name that cannot be a cache's, or a region that cannot be one.
    package init(target: Target, user: String, region: String) throws(Unusable) {
        guard AWSNames.isRegion(region) else {
            throw Unusable(
                what: "region", wanted: "a region such as us-east-1", got: region, advice: nil)
        }
        guard !user.isEmpty, !user.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7f }) else {
            throw Unusable(
                what: "user", wanted: "a user's id without spaces", got: user, advice: nil)
        }
        self.region = region
        switch target {
        case .elastiCache(let name, let isServerless):
            self.target = .elastiCache(
                name: try Self.cacheName(name), isServerless: isServerless)
            self.user = lowercasedASCII(user)
        case .memoryDB(let name):
            self.target = .memoryDB(name: try Self.cacheName(name))
            self.user = lowercasedASCII(user)
        case .database(let host, let port):
            guard isHostName(host), port > 0 else {
                throw Unusable(
                    what: "host", wanted: "the instance's host name and port",
                    got: "\(host):\(port)", advice: nil)
            }
            self.target = .database(host: lowercasedASCII(host), port: port)
            self.user = user
        }
    }

    /// Something that no token can be made for, in words for the operator.
    package struct Unusable: Error, Sendable, Equatable, CustomStringConvertible {
        package let what: String
        package let wanted: String
        package let got: String
        package let advice: String?

        package var description: String {
            "\(what): wanted \(wanted), got \"\(got)\"" + (advice.map { ": \($0)" } ?? "")
        }
    }

    private static func cacheName(_ name: String) throws(Unusable) -> String {
        if let advice = AWSNames.adviceAgainst(cacheName: name) {
            throw Unusable(
                what: "cache_name", wanted: "the cache's name, such as my-cache", got: name,
                advice: advice)
        }
        return lowercasedASCII(name)
    }

    /// The name that is signed in the credential scope.
    package var service: String {
        switch target {
        case .elastiCache: "elasticache"
        case .memoryDB: "memorydb"
        case .database: "rds-db"
        }
    }

    /// What is signed as the host.
    package var host: String {
        switch target {
        case .elastiCache(let name, _), .memoryDB(let name): name
        // Port 443 is never written: it is the default of the scheme that is cut off.
        case .database(let host, let port): port == 443 ? host : "\(host):\(port)"
        }
    }

    var query: [(name: String, value: String)] {
        switch target {
        case .elastiCache(_, true):
            [("Action", "connect"), ("User", user), ("ResourceType", "ServerlessCache")]
        case .elastiCache, .memoryDB: [("Action", "connect"), ("User", user)]
        case .database: [("Action", "connect"), ("DBUser", user)]
        }
    }
}

extension IAMTokenRequest: CustomStringConvertible {
    /// All that is signed, names as they are signed, for who must find out what is wrong with it.
    package var description: String {
        let what =
            switch target {
            case .elastiCache(let name, let isServerless):
                "cache \(name) (\(isServerless ? "serverless" : "node based"))"
            case .memoryDB(let name): "cluster \(name)"
            case .database: "database \(host)"
            }
        return "\(service) \(what), user \(user), region \(region)"
    }
}

/// A token, and until when it is good.
package struct IAMToken: Sendable {
    package let secret: Secret
    /// 900 seconds from its date, or when the credential that signed it expires, if that is sooner.
    package let expiry: WallTime

    /// Signs. Takes microseconds and does no I/O.
    ///
    /// - Parameter time: AWS's time; a token of the future is refused by the server.
    package init(
        for request: IAMTokenRequest, signedBy credential: AWSCredential, keys: SigningKeys,
        at time: WallTime
    ) {
        let signer = SignatureV4(
            credential: credential, region: request.region, service: request.service, keys: keys)
        secret =
            signer.presign(
                host: request.host, query: request.query, expires: IAMTokenRequest.lifeSeconds,
                at: time
            ).url
        // The token's own date has no fraction of a second.
        let signed = WallTime(seconds: time.milliseconds / 1000)
        let end = signed + .seconds(IAMTokenRequest.lifeSeconds)
        expiry = credential.expiry.map { min($0, end) } ?? end
    }
}

func isHostName(_ text: String) -> Bool {
    (1...253).contains(text.utf8.count)
        && text.utf8.allSatisfy {
            switch $0 {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
            default: "-._".utf8.contains($0)
            }
        }
}

/// As AWS lowers names: letters of ASCII only, so that no other letter changes its length or meaning.
private func lowercasedASCII(_ text: String) -> String {
    String(
        decoding: text.utf8.map { (0x41...0x5a).contains($0) ? $0 + 0x20 : $0 }, as: UTF8.self)
}
