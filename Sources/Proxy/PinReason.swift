// Why a session has an upstream connection to itself, for whoever watches.

import RESP

/// What made a session need a connection of its own. It may keep it for another reason: a transaction
/// that begins on a subscriber's connection changes nothing here.
package enum PinReason: UInt8, Sendable, CaseIterable {
    /// Its listener gives each client one.
    case dedicated
    /// Its replies are so big that others would have to wait for them.
    case bigReplies
    /// A request that is so big that it is passed on in parts.
    case upload
    /// SELECT, CLIENT: the server has to say first whether the user may do that.
    case state
    case transaction
    case watch
    /// BLPOP and its kin, XREAD BLOCK.
    case blocking
    /// WAIT, WAITAOF.
    case wait
    case subscription
    case monitor
    case replication
    /// CLIENT TRACKING, READONLY, and what else lasts until RESET.
    case lasting
    /// SCRIPT KILL, SHUTDOWN, and what else is not for the order of a shared connection.
    case administration

    init(_ command: CommandClass) {
        switch command {
        case .multi, .exec, .discard: self = .transaction
        case .watch, .unwatch: self = .watch
        case .blocking, .streamRead: self = .blocking
        case .wait: self = .wait
        case .subscribe, .unsubscribe: self = .subscription
        case .monitor: self = .monitor
        case .replication: self = .replication
        case .select, .client: self = .state
        case .script, .function, .outOfBand: self = .administration
        case .plain, .none, .auth, .hello, .quit, .reset, .lasting: self = .lasting
        }
    }

    /// In words without spaces, for labels and logs.
    package var name: String {
        switch self {
        case .bigReplies: "big_replies"
        case .dedicated, .upload, .state, .transaction, .watch, .blocking, .wait, .subscription,
            .monitor, .replication, .lasting, .administration:
            "\(self)"
        }
    }
}
