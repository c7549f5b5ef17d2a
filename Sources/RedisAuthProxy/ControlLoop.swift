// The loop of the main thread: signals and orders come in here, one after the other, until the end.
//
//     running ── SIGTERM, SIGINT, drain ──► draining ── every session has ended ──────┐
//      │ │ ▲                                   ▲  ├── drain_timeout has passed ───────┼──► stopped
//      │ │ └── SIGHUP, reload ──► Reload       │  └── a second SIGTERM or SIGINT ─────┤
//      │ └──── watchdog, answered pulse        │                                      │
//      └── another process has taken over ──► leaving ── every session has ended ─────┘
//                                              ▲ SIGTERM, SIGINT, handover_drain_timeout: draining

import Glibc
import Logging
import Server
import Transport

/// Waits for signals and orders on the thread that made it, and keeps the service manager informed.
final class ControlLoop {
    /// What other threads may ask for.
    enum Order: Sendable {
        /// Calls `answer` on the main thread when it is done; always, and once.
        case reload(because: String, answer: @Sendable (Reload.Outcome) -> Void)
        /// As SIGTERM. A second one changes nothing.
        case drain(because: String)
    }

    /// How long sessions may take, in nanoseconds.
    struct Patience {
        /// To be sent what is owed to them, at the end.
        var drain: UInt64
        /// To leave a process that has handed over.
        var handover: UInt64
    }

    private enum State {
        case running
        /// Another process accepts.
        case leaving(until: UInt64)
        case draining(until: UInt64)
    }

    /// How often the sessions are counted while draining, and while leaving.
    private static let drainGrain: UInt64 = 10_000_000
    private static let leaveGrain: UInt64 = 100_000_000
    /// How much sooner than the next sign of life a loop that is late is looked at again.
    private static let pulseFraction: UInt64 = 8

    /// Where orders are posted to. After the end it is closed: nobody answers any more.
    let orders = Mailbox<Order>()
    /// Called when another process has taken over: it has the places of admin from now on.
    var whenHandedOver: () -> Void = {}
    private let server: Server
    /// As the settings are now.
    private let patience: () -> Patience
    /// nil: there is nothing to read again, and SIGHUP is left alone.
    private let reload: Reload?
    private let notices: ServiceNotices
    private let logger: Logger
    private let loop: EventLoop
    private let timer = UnsafeMutablePointer<TimerWatcher>.allocate(capacity: 1)
    private let pulseTimer = UnsafeMutablePointer<TimerWatcher>.allocate(capacity: 1)
    private var state = State.running
    private var giver: HandoverGiver?
    private var pulse: Pulse?

    /// - Parameter patience: asked for whenever it is about to count.
    /// - Throws: `SystemError` if there is no descriptor for the loop.
    init(
        of server: Server, patience: @escaping () -> Patience, reload: Reload? = nil,
        notices: ServiceNotices = ServiceNotices(), handoverSocket: ListeningSocket? = nil,
        logger: Logger
    ) throws(SystemError) {
        self.server = server
        self.patience = patience
        self.reload = reload
        self.notices = notices
        self.logger = logger
        loop = try EventLoop()
        timer.initialize(to: TimerWatcher())
        pulseTimer.initialize(to: TimerWatcher())
        giver = handoverSocket.map { socket in
            HandoverGiver(socket, of: server, loop: loop, logger: logger) { [unowned self] in
                didHandOver(to: $0)
            }
        }
    }

    deinit {
        timer.deinitialize(count: 1)
        timer.deallocate()
        pulseTimer.deinitialize(count: 1)
        pulseTimer.deallocate()
    }

    /// Returns when the server has stopped.
    ///
    /// - Returns: how many sessions had to be ended with replies still owed.
    func run() throws(SystemError) -> Int {
        let handled = [SIGTERM, SIGINT] + (reload == nil ? [] : [SIGHUP])
        let signals = try SignalWatcher(loop: loop, signals: handled) { [unowned self] number in
            if number == SIGHUP {
                _ = readAgain(because: "SIGHUP")
            } else {
                didReceive(number == SIGTERM ? "SIGTERM" : "SIGINT")
            }
        }
        orders.attach(to: loop) { [unowned self] orders in
            for order in orders { carryOut(order) }
        }
        let owner = Unmanaged.passUnretained(self).toOpaque()
        timer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<ControlLoop>.fromOpaque(owner).takeUnretainedValue().check()
            },
            owner: owner
        )
        pulseTimer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<ControlLoop>.fromOpaque(owner).takeUnretainedValue().feelPulse()
            },
            owner: owner
        )
        feelPulse()
        withExtendedLifetime(signals) { loop.run() }
        timer.pointee.stop()
        pulseTimer.pointee.stop()
        giver?.close()
        giver = nil
        let left = server.stop()
        for order in orders.close() { carryOut(order) }
        return left
    }

    private func carryOut(_ order: Order) {
        switch order {
        case .reload(let reason, let answer):
            answer(readAgain(because: reason))
        case .drain(let reason):
            if case .draining = state { return }
            drain(because: reason)
        }
    }

    // MARK: Reload

    private func readAgain(because reason: String) -> Reload.Outcome {
        guard let reload else {
            return .refused(problems: ["this process has no configuration to read again"])
        }
        let obstacle: String? =
            switch state {
            case .draining: "the proxy is draining"
            case .leaving: "another process has taken over"
            case .running:
                giver?.isBusy == true ? "another process is about to take over" : nil
            }
        if let obstacle {
            let problem = "\(reason): \(obstacle), and this one takes no other configuration"
            logger.warning("\(problem)")
            return .refused(problems: [problem])
        }
        notices.willReload()
        let outcome = reload.run(because: reason)
        switch outcome {
        case .reloaded: notices.isReady()
        case .refused(let problems): notices.isReady(butRefused: problems.last ?? "")
        }
        return outcome
    }

    // MARK: The end

    private func didReceive(_ signal: String) {
        if case .draining = state {
            logger.info("\(signal) again: ending at once")
            loop.stop()
            return
        }
        drain(because: signal)
    }

    private func drain(because reason: String) {
        logger.info("\(reason): draining", metadata: ["sessions": "\(server.sessionCount)"])
        // Who has handed over is the service no longer.
        if case .running = state { notices.willStop(sessions: server.sessionCount) }
        state = .draining(until: loop.now &+ patience().drain)
        giver?.close()
        server.drain()
        check()
    }

    private func didHandOver(to processID: Int32) {
        let patience = patience()
        logger.info(
            "handed over: clients that are connected are served until they leave",
            metadata: [
                "pid": "\(processID)", "sessions": "\(server.sessionCount)",
                "handover_drain_timeout": "\(Duration.nanoseconds(patience.handover))",
            ])
        notices.didHandOver(to: processID)
        whenHandedOver()
        pulseTimer.pointee.stop()
        state = .leaving(until: loop.now &+ patience.handover)
        check()
    }

    private func check() {
        switch state {
        case .running:
            break
        case .leaving(let deadline):
            if server.sessionCount == 0 {
                loop.stop()
            } else if loop.now >= deadline {
                drain(because: "handover_drain_timeout has passed")
            } else {
                timer.pointee.start(after: Self.leaveGrain)
            }
        case .draining(let deadline):
            if server.sessionCount > 0, loop.now < deadline {
                timer.pointee.start(after: Self.drainGrain)
            } else {
                loop.stop()
            }
        }
    }

    // MARK: Signs of life

    /// One is given when all loops have answered since the last one; then they are asked again.
    private func feelPulse() {
        guard let interval = notices.watchdogInterval else { return }
        guard pulse?.isComplete != false else {
            pulseTimer.pointee.start(after: max(1_000_000, interval / Self.pulseFraction))
            return
        }
        notices.isAlive()
        pulse = server.feelPulse()
        pulseTimer.pointee.start(after: interval)
    }
}
