// What the service manager is told of this process, in its words. Without one, nothing is said.

import Logging
import Transport

/// Sent on the main thread, between two of its turns.
struct ServiceNotices {
    private let notifier: ServiceNotifier?
    /// Half of what the manager waits for a sign of life, in nanoseconds; nil: it wants none.
    let watchdogInterval: UInt64?
    private let summary: String

    /// Nobody is told.
    init() {
        notifier = nil
        watchdogInterval = nil
        summary = ""
    }

    /// - Parameter summary: what is served, in a few words.
    init(to manager: ServiceManager, summary: String, logger: Logger) {
        self.summary = summary
        var notifier: ServiceNotifier?
        if let path = manager.notifyPath {
            do throws(SystemError) {
                notifier = try ServiceNotifier(path: path)
            } catch {
                logger.warning(
                    "NOTIFY_SOCKET: the service manager cannot be told anything: \(error)",
                    metadata: ["path": "\(path)"])
            }
        }
        self.notifier = notifier
        watchdogInterval =
            notifier == nil
            ? nil
            : manager.watchdogMicroseconds.map { $0.multipliedReportingOverflow(by: 500).0 }
    }

    /// Clients are served, by the configuration that was read last.
    func isReady() { notifier?.send(["READY=1", "STATUS=\(summary)"]) }

    /// Clients are served, by the configuration of before.
    func isReady(butRefused reason: String) {
        notifier?.send(["READY=1", "STATUS=\(summary); the last reload was refused: \(reason)"])
    }

    /// The moment counts: the manager takes what was sent before for the answer to something older.
    func willReload() {
        notifier?.send([
            "RELOADING=1", "MONOTONIC_USEC=\(monotonicNanoseconds() / 1_000)",
            "STATUS=reading the configuration again",
        ])
    }

    func willStop(sessions: Int) {
        notifier?.send(["STOPPING=1", "STATUS=draining, \(sessions) sessions"])
    }

    func isAlive() { notifier?.send(["WATCHDOG=1"]) }

    /// The service goes on, in another process.
    func didHandOver(to processID: Int32) {
        notifier?.send(["MAINPID=\(processID)", "STATUS=\(summary)"])
    }
}
