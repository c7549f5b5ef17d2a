// The running process's side of a hand-over (see HandoverMessage), in the loop of the main thread.
//
//     idle ── connected ──► asked ── hello ──► offered ── ready ──► paused ── mine ──► given
//      ▲                      │                   │                    │
//      └──────────────────────┴─── the other process ends, or is late ─┘
//
// One at a time: while it is not idle, others wait in the queue of the socket, for this process or for
// the one that follows it.

import Glibc
package import Logging
package import Transport

/// Hands the listening sockets of a server to a process that asks for them. Used on the loop's thread.
package final class HandoverGiver {
    private enum State {
        case idle
        case asked(HandoverChannel)
        case offered(HandoverChannel, processID: Int32)
        case paused(HandoverChannel, processID: Int32)
        case given
    }

    /// How long a process may take to say what it wants.
    private static let greeting: UInt64 = 5_000_000_000
    /// How long it may take to start its threads.
    private static let preparation: UInt64 = 30_000_000_000
    /// How long it may take to answer while nobody accepts.
    private static let answer: UInt64 = 2_000_000_000

    private let socket: ListeningSocket
    private let server: Server
    private let logger: Logger
    private let loop: EventLoop
    private let onGiven: (Int32) -> Void
    private let watcher = UnsafeMutablePointer<IOWatcher>.allocate(capacity: 1)
    private let peerWatcher = UnsafeMutablePointer<IOWatcher>.allocate(capacity: 1)
    private let timer = UnsafeMutablePointer<TimerWatcher>.allocate(capacity: 1)
    private var state = State.idle {
        didSet { steps += 1 }
    }
    /// Changes of `state`, so that it can be told whether there was one.
    private var steps = 0

    /// - Parameters:
    ///   - socket: where hand-overs are asked for.
    ///   - onGiven: called once, with the id of the process that has taken over; the server accepts
    ///     no more then.
    package init(
        _ socket: ListeningSocket, of server: Server, loop: EventLoop, logger: Logger,
        onGiven: @escaping (Int32) -> Void
    ) {
        self.socket = socket
        self.server = server
        self.loop = loop
        self.logger = logger
        self.onGiven = onGiven
        watcher.initialize(to: IOWatcher())
        peerWatcher.initialize(to: IOWatcher())
        timer.initialize(to: TimerWatcher())
        watcher.pointee.prepare(
            loop: loop, descriptor: socket.descriptor,
            callback: { owner, _ in
                Unmanaged<HandoverGiver>.fromOpaque(owner).takeUnretainedValue().accept()
            },
            owner: Unmanaged.passUnretained(self).toOpaque())
        timer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<HandoverGiver>.fromOpaque(owner).takeUnretainedValue().isLate()
            },
            owner: Unmanaged.passUnretained(self).toOpaque())
        watcher.pointee.start(.read)
    }

    deinit {
        close()
        watcher.deinitialize(count: 1)
        watcher.deallocate()
        peerWatcher.deinitialize(count: 1)
        peerWatcher.deallocate()
        timer.deinitialize(count: 1)
        timer.deallocate()
    }

    /// Whether another process has been given, or is being given, what this one has.
    package var isBusy: Bool {
        switch state {
        case .idle, .asked: false
        case .offered, .paused, .given: true
        }
    }

    /// Hands over nothing any more. A process that has been offered the sockets may go on with them.
    package func close() {
        watcher.pointee.stop()
        peerWatcher.pointee.stop()
        timer.pointee.stop()
        state = .given
        socket.close()
    }

    // MARK: Steps

    private func accept() {
        guard case .idle = state else { return }
        switch Socket.accept(socket.descriptor) {
        case .accepted(let descriptor, _):
            begin(HandoverChannel(descriptor))
        case .wouldBlock, .aborted: break
        case .exhausted(let error), .failed(let error):
            logger.warning("cannot accept at handover_socket: \(error)")
            // It stays readable; look again later.
            watcher.pointee.stop()
            timer.pointee.start(after: Self.answer)
        }
    }

    private func begin(_ channel: HandoverChannel) {
        guard let peer = PeerCredentials.ofUnixPeer(channel.descriptor, withGroups: false),
            peer.userID == geteuid() || peer.userID == 0
        else {
            _ = channel.send(.refused("wanted a process of the user \(geteuid()) or root"))
            logger.warning("refused a hand-over to a process of another user")
            return
        }
        watcher.pointee.stop()
        state = .asked(channel)
        peerWatcher.pointee.prepare(
            loop: loop, descriptor: channel.descriptor,
            callback: { owner, _ in
                Unmanaged<HandoverGiver>.fromOpaque(owner).takeUnretainedValue().receive()
            },
            owner: Unmanaged.passUnretained(self).toOpaque())
        peerWatcher.pointee.start(.read)
        timer.pointee.start(after: Self.greeting)
    }

    private func receive() {
        guard let channel else { return }
        switch channel.receive() {
        case .end: giveUp(nil)
        case .failed(let reason): giveUp(reason)
        case .messages(let messages):
            for message in messages { take(message) }
        }
    }

    private var channel: HandoverChannel? {
        switch state {
        case .asked(let channel), .offered(let channel, _), .paused(let channel, _): channel
        case .idle, .given: nil
        }
    }

    private func take(_ message: HandoverMessage) {
        switch (state, message) {
        case (.asked(let channel), .hello(HandoverMessage.version, let processID)):
            if let reason = obstacle { return giveUp(reason) }
            offer(channel, processID)
        case (.asked, .hello(let version, _)):
            giveUp(
                "it speaks version \(version) of the hand-over, and this process version"
                    + " \(HandoverMessage.version): stop this one and start the new one")
        case (.offered(let channel, let processID), .ready):
            if let reason = obstacle { return giveUp(reason) }
            server.pause()
            if let failure = channel.send(.yours) { return giveUp(failure) }
            state = .paused(channel, processID: processID)
            timer.pointee.start(after: Self.answer)
        case (.paused(_, let processID), .mine):
            server.retire()
            close()
            onGiven(processID)
        default:
            giveUp("wanted the next step of a hand-over, got '\(message.line)'")
        }
    }

    /// What stands against a hand-over now.
    private var obstacle: String? {
        // Who asks for the others takes the console too, and nobody could let them go here.
        let users = server.pausedUsers
        return users.isEmpty
            ? nil : "commands of \(users.joined(separator: ", ")) are held back: RESUME first"
    }

    private func offer(_ channel: HandoverChannel, _ processID: Int32) {
        logger.info("another process asks to take over", metadata: ["pid": "\(processID)"])
        state = .offered(channel, processID: processID)
        timer.pointee.start(after: Self.preparation)
        var failure = channel.send(
            .hello(version: HandoverMessage.version, processID: getpid()))
        for socket in server.share() where failure == nil {
            failure = channel.send(.socket(socket.file), passing: socket.descriptor)
        }
        socket.share(true)
        if failure == nil, let file = socket.file {
            failure = channel.send(.handover(file), passing: socket.descriptor)
        }
        failure = failure ?? channel.send(.end)
        if let failure { giveUp(failure) }
    }

    private func isLate() {
        switch state {
        case .idle: watcher.pointee.start(.read)
        case .given: break
        case .asked, .offered, .paused:
            // What it said may have come in this very turn.
            let before = steps
            receive()
            if before == steps { giveUp("it took too long") }
        }
    }

    /// The other process is not going to take over: everything is as it was.
    ///
    /// - Parameter reason: nil: it has ended.
    private func giveUp(_ reason: String?) {
        guard let channel else { return }
        if let reason { _ = channel.send(.refused(reason)) }
        let wasPaused = if case .paused = state { true } else { false }
        if isBusy || reason != nil {
            logger.warning(
                "the other process did not take over; this one goes on",
                metadata: ["reason": "\(reason ?? "it has ended")"])
        }
        peerWatcher.pointee.stop()
        timer.pointee.stop()
        server.unshare()
        socket.share(false)
        if wasPaused { server.open() }
        state = .idle
        watcher.pointee.start(.read)
    }
}
