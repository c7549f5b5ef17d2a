// One thread accepts for all listeners and hands each client to the worker with the fewest.
//
// Who a client is, and so whether it comes in, is found out here, before a byte of it is read
// (Identification). A client that does not is told why and closed a moment later: closed at once, with
// its first command unread, it would see a reset and not the reason.
//
// One acceptor instead of SO_REUSEPORT: no connection is lost in the queue of a worker that ends,
// and no other process of the same user can take a share of the port.
//
// When descriptors run out the listeners are not watched for a moment: the clients wait in the
// kernel's queue, which costs nothing, instead of the loop spinning. The last descriptors are kept
// for connections to the server, without which the clients that are in would be served nothing.

import Identity
import Logging
import Synchronization
import Transport

/// What other threads tell the acceptor.
enum AcceptorMessage: Sendable {
    /// Closes the listeners.
    case stop
    case follow(Succession)
    /// Leaves clients in the kernel's queue for a while.
    case pause
    case open
    case pulse(Pulse)
}

/// A client that was let in, on its way to a worker, whom its descriptor belongs to from then on.
struct Arrival: Sendable {
    let descriptor: Int32
    let listener: Int
    /// Without its groups, which nobody asks for any more.
    let client: Client
    /// The number of its rule; nil: it must log in first.
    let route: Int?
    /// The numbers of the rules that a login can make it.
    let logins: [Int]
}

/// Accepts until it is told to stop. Used on its own thread.
final class Acceptor {
    /// How long a client that is not let in has to read why.
    private static let farewell: UInt64 = 250_000_000
    /// Such clients at a time. Reached: the first of them is closed at once. Their descriptors are
    /// among the reserved ones.
    static let farewellLimit = 16
    /// How long the listeners rest when no client can be taken.
    private static let rest: UInt64 = 100_000_000
    /// Clients accepted from one listener in a turn, so that the others get theirs.
    private static let burst = 64

    private struct Door {
        var watcher = IOWatcher()
        let socket: ListeningSocket
        let listener: Int
        unowned(unsafe) let acceptor: Acceptor
    }

    private let mailbox: Mailbox<AcceptorMessage>
    private let workers: [WorkerHandle]
    private var maximumSessions: Int
    private var configuration: ServerConfiguration
    private var identification: Identification
    private var counts: SessionCounts
    private let logger: Logger
    private let loop: EventLoop
    private var doors: [UnsafeMutablePointer<Door>] = []
    private let timer: UnsafeMutablePointer<TimerWatcher>
    /// Clients are left in the kernel's queue, until it is said otherwise.
    private var isPaused: Bool
    private var lines = RepeatedLines()
    /// Clients that were told why they are not let in, the first first.
    private var leaving: [(descriptor: Int32, due: UInt64)] = []
    private let leavingTimer: UnsafeMutablePointer<TimerWatcher>

    init(
        sockets: [(ListeningSocket, listener: Int)],
        mailbox: Mailbox<AcceptorMessage>,
        workers: [WorkerHandle],
        maximumSessions: Int,
        configuration: ServerConfiguration,
        identification: Identification,
        counts: SessionCounts,
        isPaused: Bool,
        logger: Logger
    ) throws(SystemError) {
        self.isPaused = isPaused
        self.mailbox = mailbox
        self.workers = workers
        self.maximumSessions = maximumSessions
        self.configuration = configuration
        self.identification = identification
        self.counts = counts
        self.logger = logger
        loop = try EventLoop()
        timer = .allocate(capacity: 1)
        timer.initialize(to: TimerWatcher())
        leavingTimer = .allocate(capacity: 1)
        leavingTimer.initialize(to: TimerWatcher())
        for (socket, listener) in sockets { add(socket, listener) }
    }

    @discardableResult
    private func add(_ socket: ListeningSocket, _ listener: Int) -> UnsafeMutablePointer<Door> {
        // What is accepted inherits it, which saves a call for each client.
        if !socket.address.isUnix { _ = Socket.setNoDelay(socket.descriptor) }
        let door = UnsafeMutablePointer<Door>.allocate(capacity: 1)
        door.initialize(to: Door(socket: socket, listener: listener, acceptor: self))
        doors.append(door)
        return door
    }

    deinit {
        for door in doors {
            door.deinitialize(count: 1)
            door.deallocate()
        }
        timer.deinitialize(count: 1)
        timer.deallocate()
        leavingTimer.deinitialize(count: 1)
        leavingTimer.deallocate()
    }

    func run() {
        mailbox.attach(to: loop) { [unowned self] messages in
            for message in messages {
                receive(message)
            }
        }
        timer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<Acceptor>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.open() }
            },
            owner: Unmanaged.passUnretained(self).toOpaque()
        )
        leavingTimer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<Acceptor>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.seeOff() }
            },
            owner: Unmanaged.passUnretained(self).toOpaque()
        )
        for door in doors { prepare(door) }
        open()
        loop.run()
        timer.pointee.stop()
        leavingTimer.pointee.stop()
        for (descriptor, _) in leaving { Socket.close(descriptor) }
        leaving = []
        for door in doors {
            door.pointee.watcher.stop()
            door.pointee.socket.close()
        }
        for message in mailbox.close() {
            if case .pulse(let pulse) = message { pulse.answer() }
        }
    }

    private func receive(_ message: AcceptorMessage) {
        switch message {
        case .stop:
            loop.stop()
        case .follow(let succession):
            follow(succession)
        case .pause:
            isPaused = true
            for door in doors { door.pointee.watcher.stop() }
        case .open:
            isPaused = false
            open()
        case .pulse(let pulse):
            pulse.answer()
        }
    }

    private func prepare(_ door: UnsafeMutablePointer<Door>) {
        door.pointee.watcher.prepare(
            loop: loop,
            descriptor: door.pointee.socket.descriptor,
            callback: { owner, _ in
                let door = owner.assumingMemoryBound(to: Door.self)
                door.pointee.acceptor.accept(door)
            },
            owner: UnsafeMutableRawPointer(door)
        )
    }

    /// Goes over to another configuration, and then sends the workers there: whom this let in by
    /// the old one is with a worker before that worker looks at everybody again.
    private func follow(_ succession: Succession) {
        configuration = succession.configuration
        identification = succession.identification
        counts = succession.counts
        maximumSessions = succession.maximumSessions
        doors.removeAll { door in
            guard !configuration.isOpen(listener: door.pointee.listener) else { return false }
            door.pointee.watcher.stop()
            door.pointee.socket.close()
            door.deinitialize(count: 1)
            door.deallocate()
            return true
        }
        for (socket, listener) in succession.sockets {
            let door = add(socket, listener)
            prepare(door)
            if !timer.pointee.isActive && !isPaused { door.pointee.watcher.start(.read) }
        }
        for worker in workers { worker.mailbox.post(.follow(succession)) }
        succession.isInForce.set()
    }

    private func open() {
        if isPaused { return }
        for door in doors { door.pointee.watcher.start(.read) }
    }

    /// No client can be taken now: look again in a moment.
    private func rest(_ reason: String) {
        for door in doors { door.pointee.watcher.stop() }
        timer.pointee.start(after: Self.rest)
        complain("new clients have to wait: \(reason)")
    }

    /// Tells a client why it is not let in, and closes it a moment later.
    private func sendAway(_ descriptor: Int32, _ reply: StaticString) {
        let bytes = UnsafeRawBufferPointer(start: reply.utf8Start, count: reply.utf8CodeUnitCount)
        // A new connection's send buffer is empty; a client that is gone needs no answer.
        _ = Socket.send(descriptor, bytes)
        Socket.shutdownWrite(descriptor)
        if leaving.count >= Self.farewellLimit { Socket.close(leaving.removeFirst().descriptor) }
        leaving.append((descriptor, loop.now + Self.farewell))
        if !leavingTimer.pointee.isActive { leavingTimer.pointee.start(after: Self.farewell) }
    }

    private func seeOff() {
        while let first = leaving.first, first.due <= loop.now {
            Socket.close(first.descriptor)
            leaving.removeFirst()
        }
        if let first = leaving.first { leavingTimer.pointee.start(at: first.due) }
    }

    /// In the server's own words.
    private static let full: StaticString = "-ERR max number of clients reached\r\n"
    private static let stranger: StaticString =
        "-NOPERM redis-auth-proxy: no identity rule of this listener admits this client\r\n"

    private func complain(_ text: String) {
        lines.say(.warning, text, key: text, [:], to: logger, at: loop.now)
    }

    /// Nothing holds for this client: it gets no further.
    private func refuse(_ descriptor: Int32, _ finding: Identification.Finding, listener: Int) {
        sendAway(descriptor, Self.stranger)
        counts.refused.add()
        let client = finding.client
        let endpoint = configuration.listeners[listener].endpoint
        func metadata() -> Logger.Metadata {
            var metadata: Logger.Metadata = ["listener": "\(endpoint)", "client": "\(client)"]
            if let userID = client.userID { metadata["uid"] = "\(userID)" }
            if let groupIDs = client.groupIDs {
                metadata["gids"] = "\(groupIDs.prefix(32).map(String.init).joined(separator: ","))"
            }
            if let processID = client.processID { metadata["pid"] = "\(processID)" }
            if let doubt = finding.doubt { metadata["not_identified"] = "\(doubt)" }
            metadata["refused"] = "\(counts.refused.count)"
            return metadata
        }
        let who = client.userID.map { "uid \($0)" } ?? client.address?.description ?? ""
        lines.say(
            .warning, "refused a client: no identity rule of the listener holds for it",
            key: "stranger \(listener) \(who)", metadata(), to: logger, at: loop.now)
    }

    /// The one that is to be given to a worker; nil: the client is not let in, and was told so.
    private func admit(
        _ descriptor: Int32,
        from address: SocketAddress,
        listener: Int
    ) -> Arrival? {
        let finding = identification.identify(descriptor, from: address, listener: listener)
        let numbers = configuration.routesOfListener[listener]
        var route: Int?
        let logins: [Int]
        switch configuration.listeners[listener].rules.admission(of: finding.client) {
        case .admitted(let rule, let candidates):
            route = numbers[rule]
            logins = candidates
        case .mustLogIn(let candidates):
            logins = candidates
        case .refused:
            refuse(descriptor, finding, listener: listener)
            return nil
        }
        let places = counts.places(of: route)
        guard places.take() else {
            sendAway(descriptor, Self.full)
            (route == nil ? counts.beforeLoginFull : counts.ruleFull).add()
            let principal = route.map { configuration.routes[$0].rule.principal }
            complain(
                principal.map {
                    "a client was refused: \(places.limit) of \($0) are connected, which is"
                        + " max_sessions of its rule"
                }
                    ?? "a client was refused: \(places.limit) clients have not logged in, which is"
                    + " max_sessions_before_login")
            return nil
        }
        var client = finding.client
        client.groupIDs = nil
        return Arrival(
            descriptor: descriptor,
            listener: listener,
            client: client,
            route: route,
            logins: logins.map { numbers[$0] }
        )
    }

    private func accept(_ door: UnsafeMutablePointer<Door>) {
        for _ in 0..<Self.burst {
            var total = 0
            var fewest = workers[0]
            var count = Int.max
            for worker in workers {
                let sessions = worker.sessions.load(ordering: .relaxed)
                total += sessions
                if sessions < count {
                    count = sessions
                    fewest = worker
                }
            }
            switch Socket.accept(door.pointee.socket.descriptor) {
            case .accepted(let descriptor, let address):
                guard total < maximumSessions else {
                    sendAway(descriptor, Self.full)
                    counts.full.add()
                    complain(
                        "a client was refused: \(total) are connected, which is max_sessions")
                    continue
                }
                guard
                    let arrival = admit(
                        descriptor, from: address, listener: door.pointee.listener)
                else { continue }
                fewest.sessions.add(1, ordering: .relaxed)
                if !fewest.mailbox.post(.client(arrival)) {
                    fewest.sessions.subtract(1, ordering: .relaxed)
                    counts.places(of: arrival.route).giveBack()
                    Socket.close(descriptor)
                }
            case .wouldBlock:
                return
            case .exhausted(let error):
                rest("the system has no descriptor or memory left (\(error)); see ulimit -n")
                return
            case .aborted:
                continue
            case .failed(let error):
                rest("accepting on \(door.pointee.socket.address) failed: \(error)")
                return
            }
        }
    }
}
