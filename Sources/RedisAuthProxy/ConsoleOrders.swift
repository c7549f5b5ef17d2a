// What the admin console can have done, in this process: the data plane does its part on its workers, and
// reload and drain belong to the main thread.

import Admin
import Configuration
import Glibc
import Server
import Synchronization
import Transport

extension ConsoleActions {
    /// - Parameters:
    ///   - settings: those in use.
    ///   - orders: of the control loop.
    init(
        _ server: Server, settings: SettingsInForce, orders: Mailbox<ControlLoop.Order>
    ) {
        self.init(
            report: { server.report(sessionLimit: $0) },
            carryOut: { server.carryOut($0) },
            settings: { settings.settings },
            reload: { Self.reload(orders) },
            drain: { orders.post(.drain(because: "console")) }
        )
    }

    /// Has the main thread read the configuration again, and waits until it has.
    private static func reload(_ orders: Mailbox<ControlLoop.Order>) -> Problems {
        let outcome = Awaited<Reload.Outcome>()
        guard orders.post(.reload(because: "console", answer: { outcome.set($0) })) else {
            return ["the proxy is ending"]
        }
        while true {
            switch outcome.value {
            case .reloaded: return []
            case .refused(let problems): return problems
            case nil: usleep(2_000)
            }
        }
    }
}

/// A value that one thread waits for and another brings.
private final class Awaited<Value: Sendable>: Sendable {
    private let state = Mutex<Value?>(nil)

    var value: Value? { state.withLock { $0 } }

    func set(_ value: Value) { state.withLock { $0 = value } }
}
