import Identity
import Logging
import Proxy
import Server
import Synchronization
import Testing
import Transport

/// Keeps what is logged.
private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])

    var all: [String] { lines.withLock { $0 } }

    var logger: Logger {
        Logger(label: "test") { _ in Handler(lines: self) }
    }

    private struct Handler: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.debug

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let fields = (event.metadata ?? [:]).map { " \($0)=\($1)" }.sorted().joined()
            lines.lines.withLock { $0.append("\(event.level): \(event.message)\(fields)") }
        }
    }
}

private let configuration = ServerConfiguration(
    targets: [target("cache")],
    users: [
        UpstreamUser(name: "app", userName: "app-user", source: "password_file /p", target: 0)
    ],
    listeners: [],
    threads: 1,
    limits: Limits(),
    maximumSessions: 10
)

private let facts = UpstreamFacts(
    connection: 7,
    route: 0,
    user: UserIndex(0),
    isShared: true,
    protocolVersion: 2,
    failures: 1
)

private let second: UInt64 = 1_000_000_000

@Suite struct `The operator's log of a worker` {
    @Test func `says of a refused login who, where, why and what to do`() throws {
        let lines = Lines()
        var log = EventLog(configuration: configuration, logger: lines.logger)
        log.write(.loginRefused(facts, reply: "WRONGPASS invalid"), at: second)
        let line = try #require(lines.all.first)
        for part in [
            "error:", "'app-user'", "password_file /p", "'WRONGPASS invalid'", "Check that the ACL",
            "upstream=cache", "address=cache.example:6379",
        ] {
            #expect(line.contains(part), "\(part) is not in: \(line)")
        }
    }

    @Test func `says of a refused token whose key signed it and what AWS wants`() throws {
        let lines = Lines()
        var iam = configuration
        iam.users[0].isIAM = true
        var log = EventLog(configuration: iam, logger: lines.logger)
        let credential = Credential(
            userName: "app-user", secret: Secret("X-Amz".utf8), kind: .iamToken(LoginLife()),
            origin: "signed with the access key AKID")
        log.note(
            CredentialSnapshot(version: 1, credential: credential, failure: nil),
            for: UserIndex(0))
        log.write(.loginRefused(facts, reply: "WRONGPASS invalid"), at: second)
        let line = try #require(lines.all.first)
        var rest = line[...]
        // The usual cause comes first.
        for part in ["AKID", "elasticache:Connect", "user group", "region", "access key", "clock"] {
            let found = try #require(rest.firstRange(of: part), "\(part) is not there, in: \(line)")
            rest = rest[found.upperBound...]
        }
        #expect(!line.contains("X-Amz"))
    }

    @Test(
        arguments: [
            ("ERR max number of clients reached", "maxclients"),
            ("DENIED Redis is running in protected mode", "protected mode"),
            ("ERR unknown command 'HELLO'", "Redis 6.0"),
        ]
    )
    func `names the remedy that fits the refusal`(reply: String, remedy: String) throws {
        let lines = Lines()
        var log = EventLog(configuration: configuration, logger: lines.logger)
        log.write(.loginRefused(facts, reply: reply), at: second)
        #expect(try #require(lines.all.first).contains(remedy))
    }

    @Test func `says what lasts once, and then at intervals with a count`() {
        let lines = Lines()
        var log = EventLog(configuration: configuration, logger: lines.logger)
        for tenth in 0..<50 {
            log.write(.connectFailed(facts, reason: "refused"), at: second + UInt64(tenth))
        }
        #expect(lines.all.count == 1)
        log.write(.connectFailed(facts, reason: "refused"), at: 20 * second)
        #expect(lines.all.count == 2)
        #expect(lines.all.last?.contains("repeated=49") == true)
    }

    @Test func `says why an upload that stalled was closed`() throws {
        let lines = Lines()
        var log = EventLog(configuration: configuration, logger: lines.logger)
        log.write(.sessionClosed(session: 7, .stalledUpload), at: second)
        let line = try #require(lines.all.first)
        #expect(line.hasPrefix("warning:"))
        #expect(line.contains("upload") && line.contains("max_pinned"))
        #expect(line.contains("session=7"))
    }

    @Test func `says at once when the reason has changed`() {
        let lines = Lines()
        var log = EventLog(configuration: configuration, logger: lines.logger)
        log.write(.connectFailed(facts, reason: "refused"), at: second)
        log.write(.connectFailed(facts, reason: "no route"), at: second)
        #expect(lines.all.count == 2)
    }

    @Test func `says what lasts again after it was well in between`() {
        let lines = Lines()
        var log = EventLog(configuration: configuration, logger: lines.logger)
        log.write(.connectFailed(facts, reason: "refused"), at: second)
        log.write(.ready(facts), at: second)
        log.write(.connectFailed(facts, reason: "refused"), at: second)
        #expect(lines.all.count == 3)
    }
}
