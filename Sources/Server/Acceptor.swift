// One thread accepts for all listeners and hands each client to the worker with the fewest.
//
// One acceptor instead of SO_REUSEPORT: no connection is lost in the queue of a worker that ends,
// and no other process of the same user can take a share of the port.
//
// When descriptors run out the listeners are not watched for a moment: the clients wait in the
// kernel's queue, which costs nothing, instead of the loop spinning. The last descriptors are kept
// for connections to the server, without which the clients that are in would be served nothing.

import Logging
import Synchronization
import Transport

/// What other threads tell the acceptor.
enum AcceptorMessage: Sendable {
    case stop
}

/// Accepts until it is told to stop. Used on its own thread.
final class Acceptor {
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
    private let maximumSessions: Int
    private let logger: Logger
    private let loop: EventLoop
    private var doors: [UnsafeMutablePointer<Door>] = []
    private let timer: UnsafeMutablePointer<TimerWatcher>
    private var lastComplaint: UInt64 = 0

    init(
        sockets: [(ListeningSocket, listener: Int)],
        mailbox: Mailbox<AcceptorMessage>,
        workers: [WorkerHandle],
        maximumSessions: Int,
        logger: Logger
    ) throws(SystemError) {
        self.mailbox = mailbox
        self.workers = workers
        self.maximumSessions = maximumSessions
        self.logger = logger
        loop = try EventLoop()
        timer = .allocate(capacity: 1)
        timer.initialize(to: TimerWatcher())
        for (socket, listener) in sockets {
            let door = UnsafeMutablePointer<Door>.allocate(capacity: 1)
            door.initialize(to: Door(socket: socket, listener: listener, acceptor: self))
            doors.append(door)
        }
    }

    deinit {
        for door in doors {
            door.deinitialize(count: 1)
            door.deallocate()
        }
        timer.deinitialize(count: 1)
        timer.deallocate()
    }

    func run() {
        mailbox.attach(to: loop) { [unowned self] _ in loop.stop() }
        timer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<Acceptor>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.open() }
            },
            owner: Unmanaged.passUnretained(self).toOpaque()
        )
        for door in doors {
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
        open()
        loop.run()
        timer.pointee.stop()
        for door in doors {
            door.pointee.watcher.stop()
            door.pointee.socket.close()
        }
        mailbox.close()
    }

    private func open() {
        for door in doors { door.pointee.watcher.start(.read) }
    }

    /// No client can be taken now: look again in a moment.
    private func rest(_ reason: String) {
        for door in doors { door.pointee.watcher.stop() }
        timer.pointee.start(after: Self.rest)
        complain("new clients have to wait: \(reason)")
    }

    /// Tells a client that there is no room for it, in the server's own words.
    private func refuse(_ descriptor: Int32, _ sessions: Int) {
        let reply: StaticString = "-ERR max number of clients reached\r\n"
        let bytes = UnsafeRawBufferPointer(start: reply.utf8Start, count: reply.utf8CodeUnitCount)
        // A new connection's send buffer is empty; a client that is gone needs no answer.
        _ = Socket.send(descriptor, bytes)
        Socket.close(descriptor)
        complain("a client was refused: \(sessions) are connected, which is max_sessions")
    }

    private func complain(_ text: String) {
        guard lastComplaint == 0 || loop.now > lastComplaint + 10_000_000_000 else { return }
        lastComplaint = loop.now
        logger.warning("\(text)")
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
                    refuse(descriptor, total)
                    continue
                }
                if !address.isUnix { _ = Socket.setNoDelay(descriptor) }
                fewest.sessions.add(1, ordering: .relaxed)
                if !fewest.mailbox.post(.client(descriptor, listener: door.pointee.listener)) {
                    fewest.sessions.subtract(1, ordering: .relaxed)
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
