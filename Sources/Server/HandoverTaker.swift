// The new process's side of a hand-over (see HandoverMessage): at its start, one step after the other,
// on the main thread.
//
//     connects ──► greets ──► has the sockets ──── finish() ────► accepts
//        │            │             │                 │
//        └── throws ──┴── dropped ──┴───── throws ────┘     the running process goes on

import Glibc
package import Transport

/// Why there was no hand-over. The running process goes on.
package struct HandoverError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// Takes the listening sockets of the process that runs. Used on one thread.
package final class HandoverTaker {
    /// How long the running process may take for each answer. Behind this process another one may be
    /// in the middle of a hand-over, whose end is waited for.
    private static let patience: UInt64 = 60_000_000_000

    /// Who had the sockets.
    package let processID: Int32
    /// For the listeners.
    package let sockets = InheritedSockets(from: .predecessor)
    /// Where hand-overs are asked for, if the running process listens at the path that was given.
    package private(set) var own: ListeningSocket?
    private let channel: HandoverChannel
    private let path: String
    private let isInterrupted: () -> Bool

    /// Whether a process listens there that could be asked.
    package static func isOffered(at path: String) -> Bool {
        guard let address = SocketAddress(unixPath: path) else { return false }
        switch Socket.connect(to: address) {
        case .connected(let descriptor), .inProgress(let descriptor):
            Socket.close(descriptor)
            return true
        // A full queue is somebody's.
        case .failed(let error): return error.number == EAGAIN
        }
    }

    /// Asks for the sockets.
    ///
    /// - Parameter isInterrupted: whether it is no longer wanted, here and in `finish`.
    /// - Throws: `HandoverError`; nothing has changed for the running process then.
    package init(
        path: String, isInterrupted: @escaping () -> Bool = { false }
    ) throws(HandoverError) {
        self.path = path
        self.isInterrupted = isInterrupted
        guard let address = SocketAddress(unixPath: path) else {
            throw HandoverError("handover_socket \(path): no Unix socket can have that path")
        }
        switch Socket.connect(to: address) {
        case .connected(let descriptor), .inProgress(let descriptor):
            channel = HandoverChannel(descriptor)
        case .failed(let error):
            throw HandoverError("handover_socket \(path): \(error)")
        }
        // What it hands out would be served under our name.
        guard let peer = PeerCredentials.ofUnixPeer(channel.descriptor, withGroups: false),
            peer.userID == geteuid() || peer.userID == 0
        else {
            throw HandoverError(
                "handover_socket \(path): wanted a process of the user \(geteuid()) or root to"
                    + " listen there, got another's: both must be started as the same user")
        }
        let hello = HandoverMessage.hello(version: HandoverMessage.version, processID: getpid())
        // Where it cannot be sent, what is received says why.
        _ = channel.send(hello)
        var greeted: Int32?
        var pending: [HandoverMessage] = []
        let deadline = monotonicNanoseconds() + Self.patience
        while true {
            if pending.isEmpty {
                pending = try Self.receive(
                    from: channel, path, until: deadline, unless: isInterrupted)
            }
            let message = pending.removeFirst()
            switch (message, greeted) {
            case (.hello(HandoverMessage.version, let processID), nil):
                greeted = processID
            case (.hello(let version, _), nil):
                throw HandoverError(
                    "handover_socket \(path): wanted version \(HandoverMessage.version) of the"
                        + " hand-over, got \(version): stop the running process and start this one")
            case (.socket(let file), .some):
                try Self.add(to: sockets, from: channel, file, path)
            case (.handover(let file), .some):
                let found = InheritedSockets(from: .predecessor)
                try Self.add(to: found, from: channel, file, path)
                own = found.take(address)
                found.closeRest()
            case (.end, .some(let processID)):
                self.processID = processID
                guard pending.isEmpty else { throw Self.unexpected(path, pending[0]) }
                return
            case (.refused(let reason), _):
                throw Self.refused(path, reason)
            default:
                throw Self.unexpected(path, message)
            }
        }
    }

    deinit { sockets.closeRest() }

    /// Tells the running process that this one is ready. When it returns that one accepts no more, and
    /// this one must.
    ///
    /// - Throws: `HandoverError`; the other accepts on then.
    package func finish() throws(HandoverError) {
        let deadline = monotonicNanoseconds() + Self.patience
        // Where it cannot be sent, what is received says why.
        _ = channel.send(.ready)
        guard try isGivenUp(until: deadline) else { return }
        // It may have taken it back.
        if channel.send(.mine) != nil, try isGivenUp(until: monotonicNanoseconds()) {
            throw Self.late(path)
        }
    }

    /// Waits for `yours`.
    ///
    /// - Returns: false: the running process has ended, and left everything to this one.
    private func isGivenUp(until deadline: UInt64) throws(HandoverError) -> Bool {
        while true {
            switch channel.receive() {
            case .end, .failed: return false
            case .messages(let messages):
                switch messages.first {
                case .yours: return true
                case .refused(let reason): throw Self.refused(path, reason)
                case let message?: throw Self.unexpected(path, message)
                case nil: break
                }
            }
            guard channel.wait(until: deadline, unless: isInterrupted) else {
                throw Self.late(path)
            }
        }
    }

    private static func receive(
        from channel: HandoverChannel, _ path: String, until deadline: UInt64,
        unless isInterrupted: () -> Bool
    ) throws(HandoverError) -> [HandoverMessage] {
        while true {
            guard channel.wait(until: deadline, unless: isInterrupted) else { throw late(path) }
            switch channel.receive() {
            case .messages(let messages): if !messages.isEmpty { return messages }
            case .end: throw lost(path, "the running process closed the connection")
            case .failed(let reason): throw lost(path, reason)
            }
        }
    }

    private static func add(
        to sockets: InheritedSockets, from channel: HandoverChannel, _ file: SocketFile?,
        _ path: String
    ) throws(HandoverError) {
        guard let descriptor = channel.takeDescriptor() else {
            throw lost(path, "a socket was announced and did not come")
        }
        do throws(InheritanceError) {
            try sockets.add(descriptor, file: file)
        } catch {
            Socket.close(descriptor)
            throw lost(path, error.description)
        }
    }

    private static func refused(_ path: String, _ reason: String) -> HandoverError {
        HandoverError("handover_socket \(path): the running process refused: \(reason)")
    }

    private static func late(_ path: String) -> HandoverError {
        HandoverError(
            "handover_socket \(path): the running process did not answer within"
                + " \(patience / 1_000_000_000) s, or a signal came")
    }

    private static func lost(_ path: String, _ reason: String) -> HandoverError {
        HandoverError("handover_socket \(path): the hand-over failed: \(reason)")
    }

    private static func unexpected(_ path: String, _ message: HandoverMessage) -> HandoverError {
        HandoverError(
            "handover_socket \(path): wanted the next step of a hand-over, got '\(message.line)'")
    }
}
