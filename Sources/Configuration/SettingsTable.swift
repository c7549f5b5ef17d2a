// The table of settings: every key that a configuration may contain, section by section.
//
//   threads …                     Settings                  log.level …      LogSettings
//   admin.socket …                AdminSettings
//   upstreams.NAME.address …      UpstreamSettings          …tls.ca_file …   UpstreamTLSSettings
//   users.NAME.upstream …         UserSettings              …credentials.…   CredentialSettings
//   …credentials.iam.…            IAMSource                 …secrets_manager.…  SecretsManagerSource
//   listeners[].address …         ListenerSettings          …identities[].…  IdentitySettings
//
// A key that is not here is refused; a key that is here is read, documented and tested.

import Identity

extension Settings: Section {
    static var defaults: Settings { Settings() }

    static var settings: [Setting<Settings>] {
        [
            .structure(
                "upstreams", "a mapping from names to servers", isRequired: true,
                "The servers, each under a name of your own."),
            .structure(
                "users", "a mapping from names to users", isRequired: true,
                "The ACL users that the proxy may log in as, each under a name of your own."),
            .structure(
                "listeners", "a list of listeners", isRequired: true,
                "Where clients connect, and which user they become."),
            .number(
                "threads", \.threads, 1...256, isOverridable: true,
                "Worker threads. Each has its own upstream connections: raise it when one core is"
                    + " full, not before."),
            .number(
                "connections_per_worker", \.connectionsPerWorker, 1...64,
                "Shared upstream connections that each worker keeps for each listener and protocol"
                    + " version (RESP2, RESP3)."
            ),
            .scalar(
                "gather", "true or false", "\(Settings.defaults.gather)",
                "While many clients are active, a worker waits 0.1 ms, or where replies take"
                    + " milliseconds anyway up to 2 ms, for more commands and replies before it"
                    + " goes on, and deals with them together: less CPU here and on the server, and"
                    + " more throughput. A few clients never wait."
            ) { (word, root) throws(Unwanted) in
                root.gather = try Bool(setting: word)
            }.showing { "\($0.gather)" },
            .number(
                "max_sessions", \.maxSessions, 1...1_000_000,
                "Clients at the same time, in all. One more is refused with an error."),
            .number(
                "max_sessions_before_login", \.maxSessionsBeforeLogin, 1...1_000_000,
                "Clients at the same time that must log in and have not. One more is refused with an"
                    + " error."),
            .duration(
                "login_deadline", \.loginDeadline, .milliseconds(1)...(.seconds(3600)),
                "How long a client that must log in may take to do so before it is closed."),
            .number(
                "max_pinned", \.maxPinned, 1...1_000_000,
                "Sessions that may have an upstream connection to themselves at the same time, in all"
                    + " (transactions, blocking commands, subscriptions, big values)."),
            .duration(
                "login_timeout", \.loginTimeout, .milliseconds(1)...(.seconds(3600)),
                "How long commands wait while a refused credential is read again, and how long the"
                    + " server may take to answer a login."),
            .duration(
                "upstream_wait", \.upstreamWait, .milliseconds(1)...(.seconds(3600)),
                "How long commands wait for a server that cannot be reached before they are"
                    + " answered with an error."),
            .duration(
                "drain_timeout", \.drainTimeout, .milliseconds(0)...(.seconds(86_400)),
                isOverridable: true,
                "How long replies that are owed may take after SIGTERM or SIGINT before the rest is"
                    + " cut off."),
            .scalar(
                "handover_socket", "the path of a Unix socket", nil,
                "Where a new process asks this one for its listening sockets, so that no client finds"
                    + " nobody there; and where this one asks when it starts. Not where a service"
                    + " manager passes the sockets. Without it: a new process can listen when this"
                    + " one has ended."
            ) { (word, root) throws(Unwanted) in
                if word.hasPrefix("unix:") { throw Unwanted(advice: "write the path alone") }
                guard case .unix(let path) = try ListenerAddress(setting: "unix:\(plainText(word))")
                else { throw Unwanted() }
                root.handoverSocket = path
            },
            .duration(
                "handover_drain_timeout", \.handoverDrainTimeout,
                .milliseconds(0)...(.seconds(604_800)),
                "How long the clients that are connected are served by a process that has handed over,"
                    + " before it drains."),
            .size(
                "reply_window", \.replyWindow, ByteCount(1 << 16)...ByteCount(1 << 30),
                "Bytes of replies that one session's commands in flight may be expected to bring;"
                    + " above it the session's next commands wait."),
            .size(
                "reply_buffer", \.replyBuffer, ByteCount(1 << 16)...ByteCount(1 << 28),
                "Bytes of replies that one client may leave unread before its commands wait and,"
                    + " where nobody else is held up, the server is not read on."),
            .duration(
                "slow_reader_timeout", \.slowReaderTimeout, .milliseconds(1)...(.seconds(3600)),
                "How long a client may leave a reply unread that holds up others before it is"
                    + " closed."),
            .structure("log", "a mapping with level and format", "What is logged, and how."),
            .structure(
                "admin", "a mapping with address and socket",
                "Where the proxy is watched and steered."),
        ]
    }
}

extension LogSettings: Section {
    static var defaults: LogSettings { LogSettings() }

    static var settings: [Setting<LogSettings>] {
        [
            .choice(
                "level", \.level, isOverridable: true,
                "The least severe records that are written."),
            .choice(
                "format", \.format, isOverridable: true,
                "Lines for people, or one JSON object per line."),
        ]
    }
}

extension AdminSettings: Section {
    static var defaults: AdminSettings { AdminSettings() }

    static var settings: [Setting<AdminSettings>] {
        [
            .scalar(
                "address", "IP-ADDRESS:PORT or unix:PATH", nil,
                "Where a status page, metrics for Prometheus and answers to probes (/startup, /ready,"
                    + " /live) can be had by HTTP, by whoever can connect. Nothing can be changed"
                    + " there. A Unix socket is for the proxy's own user alone. Without it: nowhere."
            ) { (word, root) throws(Unwanted) in
                root.address = try ListenerAddress(setting: word)
            }.showing { $0.address.map { "\($0)" } },
            .optionalText(
                "socket", \.socket, "the path of a Unix socket",
                without: "Without it: there is none.",
                "The console for redis-cli and scripts, for root and the proxy's own user (mode"
                    + " 0600)."),
        ]
    }
}

extension UpstreamSettings: Section {
    static var defaults: UpstreamSettings { UpstreamSettings() }

    static var settings: [Setting<UpstreamSettings>] {
        [
            .scalar(
                "address", "HOST:PORT", nil, isRequired: true,
                "The server. A name is resolved again at each connect, and all its addresses tried."
            ) { (word, root) throws(Unwanted) in root.address = try HostAndPort(setting: word) }
            .showing { "\($0.address)" },
            .structure(
                "tls", "off, on, or a mapping", defaultText: "on",
                "How the way there is protected. `on` verifies the server against the system's"
                    + " certificates; `off` sends everything, passwords too, in the clear."),
            .duration(
                "connect_timeout", \.connectTimeout, .milliseconds(1)...(.seconds(600)),
                "For one attempt: name, TCP and TLS together."),
            .duration(
                "keepalive_idle", \.keepaliveIdle, .seconds(1)...(.seconds(32_767)),
                inWholeSeconds: true,
                "Silence before the first TCP keepalive probe."),
            .duration(
                "keepalive_interval", \.keepaliveInterval, .seconds(1)...(.seconds(32_767)),
                inWholeSeconds: true,
                "Time between probes."),
            .number(
                "keepalive_count", \.keepaliveCount, 1...127,
                "Unanswered probes before the connection counts as lost."),
            .duration(
                "tcp_user_timeout", \.tcpUserTimeout, .milliseconds(0)...(.seconds(86_400)),
                "How long sent bytes may stay unacknowledged before the connection counts as lost;"
                    + " 0ms leaves it to the system (TCP_USER_TIMEOUT)."),
            .duration(
                "reconnect_min", \.reconnectMin, .milliseconds(1)...(.seconds(60)),
                "Pause after the first failed attempt; it doubles with each further one."),
            .duration(
                "reconnect_max", \.reconnectMax, .milliseconds(1)...(.seconds(3600)),
                "Longest pause between attempts. Each pause is shortened by up to half at random."),
            .duration(
                "connection_max_age", \.connectionMaxAge, .milliseconds(0)...(.seconds(2_592_000)),
                "A connection that is older is replaced as soon as nothing is under way on it and"
                    + " nothing ties a client to it, each up to a fifth earlier at random; 0ms: never."
            ),
        ]
    }
}

extension UpstreamTLSSettings: Section {
    static var defaults: UpstreamTLSSettings { UpstreamTLSSettings() }

    static var settings: [Setting<UpstreamTLSSettings>] {
        [
            .optionalText(
                "ca_file", \.caFile, "the path of a PEM file",
                without: "Without it: the system's certificates.",
                "Certificates that may vouch for the server, in place of the system's."),
            .optionalText(
                "server_name", \.serverName, "a host name",
                without: "Without it: the host of the address.",
                "The name to ask for (SNI) and to find in the server's certificate."),
            .choice(
                "min_version", \.minVersion, "The oldest version of TLS that is spoken."),
            .optionalText(
                "certificate_file", \.certificateFile, "the path of a PEM file",
                without: "Without it: none is shown.",
                "Our own certificate and its chain, for servers that ask for one. Needs key_file."),
            .optionalText(
                "key_file", \.keyFile, "the path of a PEM file",
                without: "Without it: none.",
                "The private key of certificate_file."),
        ]
    }
}

extension UserSettings: Section {
    static var defaults: UserSettings { UserSettings() }

    static var settings: [Setting<UserSettings>] {
        [
            .structure(
                "upstream", "the name of an upstream", isRequired: true,
                "The server to log in at: a key under upstreams."),
            .scalar(
                "user_name", "an ACL user's name", nil,
                "The name to log in with. Without it: the key of this user."
            ) { (word, root) throws(Unwanted) in root.userName = try aclUserName(word) }
            .showing { $0.userName },
            .structure(
                "credentials",
                "a mapping with one of password_file, password_env, iam and secrets_manager",
                isRequired: true, "Where the password, or what stands in for it, comes from."),
            .structure(
                "access_string", "the rules of an ACL user, such as on ~app:* -@all +@read",
                "What the user is meant to be allowed on the server, as ACL SETUSER and ElastiCache"
                    + " take it, without passwords. Nothing is changed there: `check` looks for"
                    + " mistakes in it, and `doctor` compares it with what the server says."),
        ]
    }
}

/// What stands under `credentials`: one source, and not two.
struct CredentialSettings: Section {
    var sources: [CredentialSource] = []

    static var defaults: CredentialSettings { CredentialSettings() }

    static var settings: [Setting<CredentialSettings>] {
        [
            .scalar(
                "password_file", "the path of a file", nil,
                "A file that holds the password and nothing else; one newline at its end is"
                    + " ignored. It is watched: a new content is used for every later login."
            ) { (word, root) throws(Unwanted) in
                root.sources.append(.passwordFile(path: try plainText(word)))
            },
            .scalar(
                "password_env", "the name of an environment variable", nil, isSensitive: true,
                "A variable that holds the password. It is read once at the start and removed from"
                    + " the environment."
            ) { (word, root) throws(Unwanted) in
                root.sources.append(.passwordEnvironment(variable: try variableName(word)))
            },
            .structure(
                "iam", "a mapping with cache_name and so on",
                "Tokens of AWS's IAM for ElastiCache and MemoryDB, signed with the AWS credentials"
                    + " of this machine, container or environment."),
            .structure(
                "secrets_manager", "a mapping with secret_id and so on",
                "A secret in AWS Secrets Manager, which is followed when it rotates."),
        ]
    }
}

extension IAMSource: Section {
    static var defaults: IAMSource { IAMSource() }

    static var settings: [Setting<IAMSource>] {
        [
            .scalar(
                "cache_name", "the name of a cache, such as my-cache", nil, isRequired: true,
                "The replication group's id, the serverless cache's or the MemoryDB cluster's name;"
                    + " not an endpoint."
            ) { (word, root) throws(Unwanted) in
                if let advice = AWSNames.adviceAgainst(cacheName: word) {
                    throw Unwanted(advice: advice)
                }
                root.cacheName = word
            },
            .choice("service", \.service, "Who checks the token."),
            .scalar(
                "serverless", "true or false", "\(IAMSource.defaults.isServerless)",
                "Whether the cache is a serverless one of ElastiCache."
            ) { (word, root) throws(Unwanted) in root.isServerless = try Bool(setting: word) },
            .scalar(
                "region", "a region such as us-east-1", nil,
                "The cache's region. Without it: AWS_REGION, the AWS profile's, or this machine's."
            ) { (word, root) throws(Unwanted) in root.region = try regionName(word) },
            .duration(
                "renew_after", \.life.renewAfter, .seconds(1)...(.seconds(86_400)),
                "How long after its login a connection logs in again, with a new token."),
            .duration(
                "connection_limit", \.life.limit, .seconds(2)...(.seconds(86_400)),
                "How long after a login the server ends a connection that has not logged in again."),
        ]
    }
}

extension SecretsManagerSource: Section {
    static var defaults: SecretsManagerSource { SecretsManagerSource() }

    static var settings: [Setting<SecretsManagerSource>] {
        [
            .scalar(
                "secret_id", "the name or ARN of a secret", nil, isRequired: true,
                "The secret: a plain text, which is the password, or a JSON object."
            ) { (word, root) throws(Unwanted) in root.secretID = try plainText(word) },
            .scalar(
                "region", "a region such as us-east-1", nil,
                "The secret's region. Without it: the ARN's, AWS_REGION, the AWS profile's, or this"
                    + " machine's."
            ) { (word, root) throws(Unwanted) in root.region = try regionName(word) },
            .scalar(
                "username_key", "a key", SecretsManagerSource.defaults.userNameKey,
                "Where a JSON object has the ACL user's name, which goes over user_name; it need not"
                    + " have one."
            ) { (word, root) throws(Unwanted) in root.userNameKey = try plainText(word) },
            .scalar(
                "password_key", "a key", SecretsManagerSource.defaults.passwordKey,
                "Where a JSON object has the password."
            ) { (word, root) throws(Unwanted) in root.passwordKey = try plainText(word) },
            .duration(
                "refresh_every", \.refreshEvery, .seconds(1)...(.seconds(86_400)),
                "How often the secret is looked at, give or take a tenth. A refused login has it"
                    + " looked at at once."),
        ]
    }
}

extension ListenerSettings: Section {
    static var defaults: ListenerSettings { ListenerSettings() }

    static var settings: [Setting<ListenerSettings>] {
        [
            .scalar(
                "address", "IP-ADDRESS:PORT or unix:PATH", nil, isRequired: true,
                "Where to listen. Port 0 lets the system choose one, which is logged at the start."
            ) { (word, root) throws(Unwanted) in root.address = try ListenerAddress(setting: word)
            }.showing { "\($0.address)" },
            .choice(
                "mode", \.mode,
                "multiplexed: clients share upstream connections. dedicated: each client has one to"
                    + " itself."),
            .structure(
                "identities", "a list of rules such as { any: true, user: NAME }", isRequired: true,
                "Which client becomes which user: the first rule that holds decides, and a client for"
                    + " which none holds is refused."),
            .scalar(
                "accept_any_login", "true or false", "\(ListenerSettings.defaults.acceptAnyLogin)",
                "Answers OK to any AUTH of a client that needs none, for applications whose settings"
                    + " still have a password. It changes nothing else."
            ) { (word, root) throws(Unwanted) in
                root.acceptAnyLogin = try Bool(setting: word)
            }.showing { "\($0.acceptAnyLogin)" },
            .scalar(
                "socket_mode", "octal permissions from 0000 to 0777",
                ListenerSettings.defaults.socketMode.settingText,
                "Permissions of a Unix socket: who may write to it may connect."
            ) { (word, root) throws(Unwanted) in root.socketMode = try SocketMode(setting: word) }
            .showing { $0.socketMode.settingText },
            .optionalText(
                "socket_owner", \.socketOwner, "a user's name or number",
                without: "Without it: the proxy's own user.",
                "The user that a Unix socket belongs to."),
            .optionalText(
                "socket_group", \.socketGroup, "a group's name or number",
                without: "Without it: the proxy's own group.",
                "The group that a Unix socket belongs to."),
        ]
    }
}

/// Redis takes any name without a space or NUL (acl.c, ACLStringHasSpaces); control characters are
/// refused here as well, because names stand in logs.
func aclUserName(_ word: String) throws(Unwanted) -> String {
    guard !word.isEmpty, word.utf8.count <= 255 else {
        throw Unwanted(advice: "a name has 1 to 255 bytes")
    }
    guard !word.utf8.contains(where: { $0 <= 0x20 || $0 == 0x7f }) else {
        throw Unwanted(advice: "a name has no spaces and no control characters")
    }
    return word
}

private func regionName(_ word: String) throws(Unwanted) -> String {
    guard AWSNames.isRegion(word) else {
        throw Unwanted(advice: "a region's name has lower-case letters, digits and hyphens")
    }
    return word
}

private func variableName(_ word: String) throws(Unwanted) -> String {
    let isName =
        !word.isEmpty && word.utf8.count <= 255
        && word.utf8.enumerated().allSatisfy { index, byte in
            switch byte {
            case 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "_"): true
            case 0x30...0x39: index > 0
            default: false
            }
        }
    guard isName else {
        throw Unwanted(advice: "a variable's name has letters, digits and underscores")
    }
    return word
}
