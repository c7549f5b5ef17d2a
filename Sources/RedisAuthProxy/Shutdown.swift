// How a running proxy ends.
//
//     running ── SIGTERM or SIGINT ──► draining ── every session has ended ──────┐
//                                         ├── drain_timeout has passed ──────────┼──► stopped
//        └── SIGHUP ──► reload ──┐        └── a second SIGTERM or SIGINT ────────┘
//        ▲───────────────────────┘

import Glibc
import Logging
import Server
import Transport

/// Waits for signals in a loop of its own, on the thread that made it.
final class Shutdown {
    /// How often the sessions are counted while draining.
    private static let grain: UInt64 = 10_000_000

    private let server: Server
    private let drainTimeout: UInt64
    /// Runs while nothing is drained; nil leaves SIGHUP alone.
    private let onHangup: (() -> Void)?
    private let logger: Logger
    private let loop: EventLoop
    private let timer = UnsafeMutablePointer<TimerWatcher>.allocate(capacity: 1)
    /// When draining must be over; nil while running.
    private var deadline: UInt64?

    /// - Throws: `SystemError` if there is no descriptor for the loop.
    init(
        of server: Server, within drainTimeout: Duration, onHangup: (() -> Void)? = nil,
        logger: Logger
    ) throws(SystemError) {
        self.server = server
        self.onHangup = onHangup
        self.logger = logger
        let (seconds, attoseconds) = drainTimeout.components
        self.drainTimeout =
            UInt64(min(max(0, seconds), 1_000_000)) * 1_000_000_000
            + UInt64(max(0, attoseconds)) / 1_000_000_000
        loop = try EventLoop()
        timer.initialize(to: TimerWatcher())
    }

    deinit {
        timer.deinitialize(count: 1)
        timer.deallocate()
    }

    /// Returns when the server has stopped.
    ///
    /// - Returns: how many sessions had to be ended with replies still owed.
    func wait() throws(SystemError) -> Int {
        let handled = [SIGTERM, SIGINT] + (onHangup == nil ? [] : [SIGHUP])
        let signals = try SignalWatcher(loop: loop, signals: handled) { [unowned self] number in
            if number == SIGHUP {
                if deadline == nil { onHangup?() }
            } else {
                didReceive(number == SIGTERM ? "SIGTERM" : "SIGINT")
            }
        }
        timer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<Shutdown>.fromOpaque(owner).takeUnretainedValue().check()
            },
            owner: Unmanaged.passUnretained(self).toOpaque()
        )
        withExtendedLifetime(signals) { loop.run() }
        timer.pointee.stop()
        return server.stop()
    }

    private func didReceive(_ signal: String) {
        guard deadline == nil else {
            logger.info("\(signal) again: ending at once")
            loop.stop()
            return
        }
        logger.info("\(signal): draining", metadata: ["sessions": "\(server.sessionCount)"])
        deadline = loop.now + drainTimeout
        server.drain()
        check()
    }

    private func check() {
        if let deadline, server.sessionCount > 0, loop.now < deadline {
            timer.pointee.start(after: Self.grain)
        } else {
            loop.stop()
        }
    }
}
