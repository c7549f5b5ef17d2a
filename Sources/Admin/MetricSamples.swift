// Samples for the table of metrics, out of an observation.

import Histogram
import Identity
import Proxy
import Server
package import Telemetry

extension Observation {
    /// Upper bounds of the latency's buckets in seconds: from what a local server needs to what a
    /// client gives up at.
    static let latencyBounds: [Double] = [
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
        2.5,
        5, 10,
    ]

    /// Everything that /metrics exposes.
    package var exposition: Exposition {
        var exposition = Exposition()
        addProcess(to: &exposition)
        addClients(to: &exposition)
        exposition.add(MetricTable.latency, figures.latency.buckets(Self.latencyBounds))
        addUpstreams(to: &exposition)
        addUsers(to: &exposition)
        for (name, allowed, used) in limitFigures {
            exposition.add(MetricTable.limit, Double(allowed), name)
            exposition.add(MetricTable.limitUsed, Double(used), name)
        }
        return exposition
    }

    private func addProcess(to exposition: inout Exposition) {
        exposition.add(MetricTable.buildInfo, 1, version)
        exposition.add(MetricTable.startTime, startedAt.timeIntervalSince1970)
        exposition.add(MetricTable.cpu, process.cpuSeconds)
        exposition.add(MetricTable.memory, Double(process.residentBytes))
        exposition.add(MetricTable.openDescriptors, Double(process.openDescriptors))
        exposition.add(MetricTable.maximumDescriptors, Double(process.maximumDescriptors))
        exposition.add(MetricTable.ready, readiness.obstacles.isEmpty ? 1 : 0)
        exposition.add(MetricTable.draining, report.isDraining ? 1 : 0)
        exposition.add(MetricTable.lateWorkers, Double(report.late.count))
        for worker in report.workers {
            exposition.add(MetricTable.loopLag, Double(worker.lag) / 1e9, "\(worker.worker)")
        }
    }

    private func addClients(to exposition: inout Exposition) {
        for row in sessionRows {
            let (listener, principal, user, tally) = (
                row.listener, row.principal, row.user, row.tally
            )
            func add(_ metric: Metric, _ value: Double) {
                exposition.add(metric, value, listener, principal, user)
            }
            add(MetricTable.sessions, Double(tally.open))
            add(MetricTable.pinnedSessions, Double(tally.pinned))
            add(MetricTable.sessionsOpened, Double(tally.opened))
            for reason in CloseReason.allCases {
                exposition.add(
                    MetricTable.sessionsClosed, Double(tally.closed[Int(reason.rawValue)]),
                    listener,
                    principal, user, "\(reason)")
            }
            add(MetricTable.commands, Double(tally.commands))
            add(MetricTable.receivedBytes, Double(tally.received))
            add(MetricTable.sentBytes, Double(tally.sent))
            add(MetricTable.owedReplies, Double(tally.owedReplies))
            add(MetricTable.unsentBytes, Double(tally.unsent))
        }
        let refused = report.refused
        for (reason, count) in [
            ("no_rule", refused.noRule), ("max_sessions", refused.full),
            ("max_sessions_of_rule", refused.ruleFull),
            ("max_sessions_before_login", refused.beforeLoginFull),
        ] {
            exposition.add(MetricTable.sessionsRefused, Double(count), reason)
        }
        exposition.add(MetricTable.violations, 0)
        for worker in report.workers {
            exposition.add(MetricTable.violations, Double(worker.tally.violations))
            for (listener, count) in worker.tally.clientLogins.enumerated() {
                exposition.add(
                    MetricTable.clientLogins, Double(count), report.name(ofListener: listener),
                    "accepted")
                exposition.add(
                    MetricTable.clientLogins, Double(worker.tally.clientLoginsRefused[listener]),
                    report.name(ofListener: listener), "refused")
            }
            for (reason, count) in [
                ("window", worker.waiting.window), ("unread_replies", worker.waiting.output),
                ("upstream", worker.waiting.upstream), ("max_pinned", worker.waiting.pin),
                ("login", worker.waiting.login),
            ] {
                exposition.add(MetricTable.waitingSessions, Double(count), reason)
            }
        }
        for reason in PinReason.allCases {
            let index = Int(reason.rawValue)
            exposition.add(MetricTable.pins, Double(figures.pins[index]), reason.name)
            exposition.add(MetricTable.pinned, Double(figures.pinned[index]) / 1e9, reason.name)
        }
    }

    private func addUpstreams(to exposition: inout Exposition) {
        for user in report.configuration.usersInUse {
            let (upstream, name) = report.names(of: user)
            // There whether there is a connection or not.
            exposition.add(
                MetricTable.upstreamConnections, 0, upstream, name, Upstream.State.ready.name,
                "shared")
            exposition.add(MetricTable.upstreamOwedReplies, 0, upstream, name)
            exposition.add(MetricTable.upstreamWaitingBytes, 0, upstream, name)
        }
        for connection in report.workers.flatMap(\.upstreams) {
            let (upstream, user) = report.names(of: connection.user)
            exposition.add(
                MetricTable.upstreamConnections, 1, upstream, user, connection.state.name,
                connection.use.name)
            exposition.add(
                MetricTable.upstreamOwedReplies, Double(connection.owedReplies), upstream, user)
            exposition.add(
                MetricTable.upstreamWaitingBytes, Double(connection.waiting), upstream, user)
        }
    }

    private func addUsers(to exposition: inout Exposition) {
        for user in report.configuration.users.indices.map({ UserIndex($0) }) {
            let (upstream, name) = report.names(of: user)
            let tally = report.tally(of: user)
            exposition.add(MetricTable.logins, Double(tally.logins), upstream, name, "accepted", "")
            exposition.add(
                MetricTable.renewals, Double(tally.renewals), upstream, name, "accepted", "")
            for failure in LoginFailure.allCases {
                exposition.add(
                    MetricTable.logins, Double(tally.loginFailures[failure.index]), upstream, name,
                    "failed", failure.rawValue)
                exposition.add(
                    MetricTable.renewals, Double(tally.renewalFailures[failure.index]), upstream,
                    name, "failed", failure.rawValue)
            }
            exposition.add(MetricTable.loginsExpired, Double(tally.expired), upstream, name)
            exposition.add(MetricTable.upstreamLost, Double(tally.lost), upstream, name)
            exposition.add(
                MetricTable.commandsGivenUp, Double(tally.commandsGivenUp), upstream, name)
        }
        for user in userRows {
            if let age = user.oldestLoginAge {
                exposition.add(MetricTable.oldestLogin, age, user.upstream, user.name)
            }
            if let next = user.nextRenewal {
                exposition.add(MetricTable.nextRenewal, next, user.upstream, user.name)
            }
            exposition.add(
                MetricTable.credentialAvailable, user.hasCredential ? 1 : 0, user.upstream,
                user.name)
            exposition.add(
                MetricTable.credentialFailing, user.credential.failure == nil ? 0 : 1,
                user.upstream, user.name)
            if let age = user.credentialAge {
                exposition.add(MetricTable.credentialAge, age, user.upstream, user.name)
            }
            if let left = user.credentialLeft {
                exposition.add(MetricTable.credentialLeft, left, user.upstream, user.name)
            }
        }
    }
}

extension Histogram<UInt64> {
    /// Cumulative counts for upper bounds in seconds.
    func buckets(_ bounds: [Double]) -> Exposition.Buckets {
        var counts = [UInt64](repeating: 0, count: bounds.count)
        var sum = 0.0
        for entry in recordedValues() {
            // The middle of what is one value here.
            let seconds = Double(medianEquivalentForValue(entry.value)) / 1e9
            sum += seconds * Double(entry.count)
            if let place = bounds.firstIndex(where: { seconds <= $0 }) {
                counts[place] += entry.count
            }
        }
        var cumulative: UInt64 = 0
        let buckets = zip(bounds, counts).map { bound, count in
            cumulative += count
            return (bound: bound, count: cumulative)
        }
        return Exposition.Buckets(bounds: buckets, count: totalCount, sum: sum)
    }
}
