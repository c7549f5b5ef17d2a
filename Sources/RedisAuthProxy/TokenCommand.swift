import AWS
import ArgumentParser
import Glibc
import Identity

/// `token`: an IAM token for redis-cli, a script or a database client.
struct TokenCommand: ParsableCommand {
    /// The services that check such tokens; their names in a signature.
    enum Service: String, CaseIterable, ExpressibleByArgument {
        case elastiCache = "elasticache"
        case memoryDB = "memorydb"
        case database = "rds-db"
    }

    enum Format: String, CaseIterable, ExpressibleByArgument {
        case text
        case env
        case json
    }

    static let configuration = CommandConfiguration(
        commandName: "token",
        abstract: "Print an IAM token, which stands in for a password.",
        discussion: """
            Signs a token with the AWS credentials of this environment and prints it. It is good for \
            \(IAMTokenRequest.lifeSeconds / 60) minutes, or until the credentials that signed it \
            expire; a connection that is logged in stays logged in longer.

            Credentials are looked for in this order: environment variables; the profile that \
            --profile or AWS_PROFILE names, or default (role, single sign-on, credential_process, \
            keys); AWS_WEB_IDENTITY_TOKEN_FILE; container credentials; instance metadata. The \
            region: --region, AWS_REGION, AWS_DEFAULT_REGION, the profile, the instance's own.

            --cache-name is the replication group's id, the serverless cache's name or the MemoryDB \
            cluster's name, not an endpoint. Names of caches and users are lowered, as AWS keeps them.

            FORMATS
              text   the token and a line break
              env    lines for a shell's eval: REDISCLI_AUTH for redis-cli, or PGPASSWORD and \
            MYSQL_PWD for a database
              json   the token, its expiry and what was signed

            EXAMPLES
              redis-auth-proxy token --cache-name my-cache --user app --region us-east-1
              eval "$(redis-auth-proxy token --cache-name my-cache --user app --format env)"
              redis-cli --tls -h master.my-cache.abc123.use1.cache.amazonaws.com --user app
              redis-auth-proxy token --cache-name my-cache --user app --serverless --format json
              redis-auth-proxy token --service rds-db --host db.example --port 5432 --user app

            EXIT CODES
            \(Exit.table)
            """)

    @Option(
        help: ArgumentHelp(
            "The replication group, serverless cache or cluster to log in to.", valueName: "name"))
    var cacheName: String?

    @Option(
        help: ArgumentHelp(
            "The user's id, or a database's user name.", valueName: "name"))
    var user: String

    @Option(help: ArgumentHelp("The region of the cache or database.", valueName: "region"))
    var region: String?

    @Flag(help: "The cache is a serverless one.")
    var serverless = false

    @Option(
        help: ArgumentHelp("Who will check the token: elasticache, memorydb or rds-db."))
    var service = Service.elastiCache

    @Option(help: ArgumentHelp("rds-db: the instance's host name.", valueName: "name"))
    var host: String?

    @Option(help: ArgumentHelp("rds-db: the instance's port.", valueName: "number"))
    var port: UInt16?

    @Option(help: ArgumentHelp("How to print it: text, env or json."))
    var format = Format.text

    @Option(
        help: ArgumentHelp("The profile in the shared AWS files.", valueName: "name"))
    var profile: String?

    func run() throws {
        let target = try target()
        do throws(AWSFailure) {
            let settings = try AWSSettings(.ofProcess(), profile: profile)
            let client = AWSClient(settings)
            let chain = ProviderChain(client)
            let region: String
            if let given = self.region { region = given } else { region = try chain.region() }
            let request: IAMTokenRequest
            do throws(IAMTokenRequest.Unusable) {
                request = try IAMTokenRequest(target: target, user: user, region: region)
            } catch {
                throw AWSFailure(.refused, error.description)
            }
            let token = IAMToken(
                for: request, signedBy: try chain.fetch(), keys: client.keys,
                at: client.clock.now())
            print(token, of: request)
        } catch {
            complain("token: \(error.reason)")
            throw error.kind == .refused ? Exit.configuration.code : Exit.unavailable.code
        }
    }

    private func target() throws -> IAMTokenRequest.Target {
        switch service {
        case .elastiCache, .memoryDB:
            guard let cacheName else {
                throw ValidationError("--service \(service.rawValue) needs --cache-name NAME.")
            }
            guard host == nil, port == nil else {
                throw ValidationError(
                    "--host and --port are for --service rds-db: a cache's token names the cache"
                        + " and no host.")
            }
            guard service == .elastiCache else {
                guard !serverless else {
                    throw ValidationError("--serverless is for --service elasticache.")
                }
                return .memoryDB(name: cacheName)
            }
            return .elastiCache(name: cacheName, isServerless: serverless)
        case .database:
            guard let host, let port else {
                throw ValidationError("--service rds-db needs --host NAME and --port NUMBER.")
            }
            guard cacheName == nil, !serverless else {
                throw ValidationError(
                    "--cache-name and --serverless are for caches: --service rds-db has --host and"
                        + " --port.")
            }
            return .database(host: host, port: port)
        }
    }

    /// Nothing in a token, a name or a region needs a quote in a shell or in JSON: a token is
    /// percent-encoded, and names were checked before they were signed.
    private func print(_ token: IAMToken, of request: IAMTokenRequest) {
        var text = WipedBuffer(capacity: 4096)
        switch format {
        case .text:
            text.append(token.secret)
            text.append("\n")
        case .env:
            let names = service == .database ? ["PGPASSWORD", "MYSQL_PWD"] : ["REDISCLI_AUTH"]
            for name in names {
                text.append("export \(name)='")
                text.append(token.secret)
                text.append("'\n")
            }
        case .json:
            text.append("{\"token\": \"")
            text.append(token.secret)
            text.append("\", \"expires_at\": \"\(token.expiry.iso8601)\"")
            text.append(", \"service\": \"\(request.service)\", \"host\": \"\(request.host)\"")
            text.append(", \"user\": \"\(jsonEscaped(request.user))\"")
            text.append(", \"region\": \"\(request.region)\"}\n")
        }
        text.withBytes { bytes in
            var rest = bytes[...]
            while !rest.isEmpty {
                let part = UnsafeRawBufferPointer(rebasing: rest)
                let written = write(STDOUT_FILENO, part.baseAddress, part.count)
                if written < 0, errno == EINTR { continue }
                // A reader that has gone away: there is nobody left to tell.
                guard written > 0 else { return }
                rest = rest.dropFirst(written)
            }
        }
    }
}

/// A user's name may have a quote or a backslash in it.
private func jsonEscaped(_ text: String) -> String {
    text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"")
}
