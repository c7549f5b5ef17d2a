// /status.json: an observation as JSON. Names are stable: one is added now and then, none changes its
// meaning. Times are seconds, sizes bytes.

import Foundation
import Identity
import Proxy
import Server

/// See the head of this file.
struct StatusDocument: Encodable {
    struct Obstacle: Encodable {
        let subject: String
        let reason: String

        init(_ obstacle: Readiness.Obstacle) {
            subject = obstacle.subject
            reason = obstacle.reason
        }
    }

    struct Listener: Encodable {
        let address: String
        let mode: String
        let sessions: Int
    }

    struct Sessions: Encodable {
        let listener: String
        let principal: String
        let user: String
        let connected: Int
        let pinned: Int
        let opened: UInt64
        let closed: [String: UInt64]
        let commands: UInt64
        let receivedBytes: UInt64
        let sentBytes: UInt64
        let owedReplies: Int
        let unreadReplyBytes: Int
    }

    struct Connections: Encodable {
        let state: String
        let use: String
        let count: Int
    }

    struct User: Encodable {
        let name: String
        let upstream: String
        let credentialSource: String
        let credentialKind: String
        let credentialVersion: UInt64
        let credentialAvailable: Bool
        /// Absent: it does not expire.
        let credentialSecondsLeft: Double?
        let credentialAgeSeconds: Double?
        let credentialFailure: String?
        let lastLogin: String
        let lastLoginFailure: String?
        let logins: UInt64
        let loginsFailed: UInt64
        let renewals: UInt64
        let renewalsFailed: UInt64
        let connectionsLost: UInt64
        let oldestLoginAgeSeconds: Double?
        let nextRenewalSeconds: Double?
        let connections: [Connections]
    }

    struct Latency: Encodable {
        let percentile: Double
        let seconds: Double
    }

    struct Recent: Encodable {
        let seconds: Double
        let commandsPerSecond: Double
        /// Absent: nothing was answered.
        let latency: [Latency]?
    }

    struct Limit: Encodable {
        let name: String
        let allowed: Int
        let used: Int
    }

    struct Worker: Encodable {
        let number: Int
        let sessions: Int
        let loopLagSeconds: Double
        let isLate: Bool
    }

    struct Record: Encodable {
        let time: String
        let level: String
        let text: String
    }

    let version: String
    let time: String
    let uptimeSeconds: Double
    let isReady: Bool
    let isDraining: Bool
    let obstacles: [Obstacle]
    let listeners: [Listener]
    let sessions: [Sessions]
    let sessionsRefused: [String: Int]
    let users: [User]
    let commands: UInt64
    /// Absent until somebody has looked twice.
    let recent: Recent?
    /// Since the start.
    let latency: [Latency]?
    let limits: [Limit]
    let workers: [Worker]
    let pins: [String: UInt64]
    /// Warnings and errors, the newest first.
    let records: [Record]

    init(_ observation: Observation) {
        let report = observation.report
        let rows = observation.sessionRows
        version = observation.version
        time = Date().ISO8601Format()
        uptimeSeconds = -observation.startedAt.timeIntervalSinceNow
        isReady = observation.readiness.obstacles.isEmpty
        isDraining = report.isDraining
        obstacles = observation.readiness.obstacles.map(Obstacle.init)
        listeners = report.configuration.listeners.indices
            .filter(report.configuration.isOpen(listener:))
            .map { number in
                let name = report.name(ofListener: number)
                return Listener(
                    address: name,
                    mode: report.configuration.listeners[number].isDedicated
                        ? "dedicated" : "multiplexed",
                    sessions: rows.filter { $0.listener == name }.reduce(0) { $0 + $1.tally.open })
            }
        sessions = rows.map(Sessions.init)
        sessionsRefused = [
            "no_rule": report.refused.noRule, "max_sessions": report.refused.full,
            "max_sessions_of_rule": report.refused.ruleFull,
            "max_sessions_before_login": report.refused.beforeLoginFull,
        ]
        users = observation.userRows.map(User.init)
        commands = report.commands
        recent = observation.recent.map { recent in
            Recent(
                seconds: recent.seconds, commandsPerSecond: recent.commandsPerSecond,
                latency: recent.latency?.map(Latency.init))
        }
        latency = observation.figures.latency
            .percentiles(Observer.percentiles, since: Figures.emptyLatency)?
            .map(Latency.init)
        limits = observation.limitFigures.map(Limit.init)
        workers = report.workers.map { worker in
            Worker(
                number: worker.worker, sessions: worker.sessionCount,
                loopLagSeconds: Double(worker.lag) / 1e9,
                isLate: report.late.contains(worker.worker))
        }
        pins = Dictionary(
            uniqueKeysWithValues: PinReason.allCases.map {
                ($0.name, observation.figures.pins[Int($0.rawValue)])
            })
        records = observation.records.reversed().map { record in
            Record(
                time: Date(timeIntervalSince1970: record.seconds).ISO8601Format(),
                level: record.level.rawValue, text: record.text)
        }
    }

    /// As it is sent.
    func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys]
        return try encoder.encode(self)
    }
}

extension StatusDocument.Latency {
    fileprivate init(_ entry: (percentile: Double, seconds: Double)) {
        self.init(percentile: entry.percentile, seconds: entry.seconds)
    }
}

extension StatusDocument.Limit {
    fileprivate init(_ figure: (name: String, allowed: Int, used: Int)) {
        self.init(name: figure.name, allowed: figure.allowed, used: figure.used)
    }
}

extension StatusDocument.Sessions {
    fileprivate init(_ row: SessionRow) {
        listener = row.listener
        principal = row.principal
        user = row.user
        connected = row.tally.open
        pinned = row.tally.pinned
        opened = row.tally.opened
        var reasons: [String: UInt64] = [:]
        for reason in CloseReason.allCases where row.tally.closed[Int(reason.rawValue)] > 0 {
            reasons["\(reason)"] = row.tally.closed[Int(reason.rawValue)]
        }
        closed = reasons
        commands = row.tally.commands
        receivedBytes = row.tally.received
        sentBytes = row.tally.sent
        owedReplies = row.tally.owedReplies
        unreadReplyBytes = row.tally.unsent
    }
}

extension StatusDocument.User {
    fileprivate init(_ row: UserRow) {
        name = row.name
        upstream = row.upstream
        credentialSource = row.source
        credentialKind = row.credential.isToken ? "token" : "password"
        credentialVersion = row.credential.version
        credentialAvailable = row.hasCredential
        credentialSecondsLeft = row.credentialLeft
        credentialAgeSeconds = row.credentialAge
        credentialFailure = row.credential.failure
        switch row.tally.outcome {
        case .accepted: lastLogin = "accepted"
        case .failed(let kind): lastLogin = kind.rawValue
        case nil: lastLogin = "none"
        }
        lastLoginFailure = row.tally.outcome == .accepted ? nil : row.tally.failure
        logins = row.tally.logins
        loginsFailed = row.tally.loginFailures.reduce(0, +)
        renewals = row.tally.renewals
        renewalsFailed = row.tally.renewalFailures.reduce(0, +)
        connectionsLost = row.tally.lost
        oldestLoginAgeSeconds = row.oldestLoginAge
        nextRenewalSeconds = row.nextRenewal
        connections = row.connections.map {
            StatusDocument.Connections(state: $0.state, use: $0.use, count: $0.count)
        }
    }
}
