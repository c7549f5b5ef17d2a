// Asks the data plane what it does, for everybody who wants to know at once.
//
//     /metrics ─┐                             at most one question every `grain`
//     / ────────┼─► Observer ── report() ──► data plane
//     /ready ───┘       └── a short history: rates and recent latency

import Foundation
import Histogram
import Proxy
package import Server
package import Telemetry

/// Everything that is known at one moment.
package struct Observation: Sendable {
    package let report: ServerReport
    package let readiness: Readiness
    /// Each user has logged in once since the start.
    package let hasStarted: Bool
    package let records: [RecentRecords.Record]
    let process: ProcessFigures
    /// Since the start.
    let figures: Figures
    /// Of the last seconds, as far as anybody has been looking.
    let recent: Recent?
    let startedAt: Date
    package let version: String

    /// What happened between two observations.
    struct Recent: Sendable {
        var seconds: Double
        var commandsPerSecond: Double
        /// Upper bounds in seconds; nil: nothing was answered.
        var latency: [(percentile: Double, seconds: Double)]?
    }
}

/// See the head of this file.
package actor Observer {
    /// Who asks twice within this gets the same answer.
    static let grain = 0.1
    /// What "recent" is, at most.
    static let window = 10.0
    static let percentiles = [50.0, 90, 99, 99.9]

    private struct Past {
        let at: UInt64
        let commands: UInt64
        let latency: Histogram<UInt64>
    }

    private let ask: @Sendable () -> ServerReport
    private let records: RecentRecords
    private let version: String
    private let startedAt = Date()
    private var history: [Past] = []
    private var hasStarted = false
    private var last: (observation: Observation, takenAt: Date)?
    private var question: Task<Observation, Never>?
    /// Questions block for as long as a worker takes to answer, so they have a thread to block.
    private let desk = DispatchQueue(label: "admin")

    /// - Parameters:
    ///   - ask: the data plane's report; may block for a moment.
    ///   - records: what the operator's log got.
    package init(
        records: RecentRecords, version: String, ask: @escaping @Sendable () -> ServerReport
    ) {
        self.records = records
        self.version = version
        self.ask = ask
    }

    /// What there is to know now, or was a moment ago.
    package func observe() async -> Observation {
        if let question { return await question.value }
        if let last, -last.takenAt.timeIntervalSinceNow < Self.grain { return last.observation }
        let task = Task { await look() }
        question = task
        let observation = await task.value
        question = nil
        return observation
    }

    private func look() async -> Observation {
        let ask = ask
        let report = await withCheckedContinuation { continuation in
            desk.async { continuation.resume(returning: ask()) }
        }
        let readiness = Readiness(report)
        if readiness.unstarted.isEmpty { hasStarted = true }
        var figures = Figures()
        for worker in report.workers { figures.add(worker.figures) }
        let present = Past(
            at: report.takenAt, commands: report.commands, latency: figures.latency)
        let observation = Observation(
            report: report,
            readiness: readiness,
            hasStarted: hasStarted,
            records: records.all,
            process: .now,
            figures: figures,
            recent: remember(present),
            startedAt: startedAt,
            version: version
        )
        last = (observation, Date())
        return observation
    }

    /// Compares with the oldest of the last seconds.
    private func remember(_ present: Past) -> Observation.Recent? {
        let window = UInt64(Self.window * 1e9)
        history.removeAll { $0.at + window < present.at }
        defer {
            // One each half second is enough.
            if history.last.map({ $0.at + 500_000_000 <= present.at }) ?? true {
                history.append(present)
            }
        }
        guard let past = history.first, past.at < present.at else { return nil }
        let seconds = Double(present.at - past.at) / 1e9
        return Observation.Recent(
            seconds: seconds,
            commandsPerSecond: Double(present.commands &- past.commands) / seconds,
            latency: present.latency.percentiles(Self.percentiles, since: past.latency)
        )
    }
}

extension ServerReport {
    /// All commands of all clients.
    var commands: UInt64 {
        workers.reduce(0) { sum, worker in
            (worker.tally.byRoute + worker.tally.beforeLogin).reduce(sum) { $0 &+ $1.commands }
        }
    }
}

extension Histogram<UInt64> {
    /// Of what was recorded since `earlier`; nil if nothing was. Values in seconds.
    func percentiles(
        _ percentiles: [Double], since earlier: Histogram<UInt64>
    ) -> [(percentile: Double, seconds: Double)]? {
        let total = totalCount - Swift.min(totalCount, earlier.totalCount)
        guard total > 0 else { return nil }
        var result: [(percentile: Double, seconds: Double)] = []
        var count: UInt64 = 0
        for entry in recordedValues() {
            count += entry.count - Swift.min(entry.count, earlier.countForValue(entry.value))
            while result.count < percentiles.count,
                Double(count) >= Double(total) * percentiles[result.count] / 100
            {
                let value = highestEquivalentForValue(entry.value)
                result.append((percentiles[result.count], Double(value) / 1e9))
            }
        }
        return result
    }
}
