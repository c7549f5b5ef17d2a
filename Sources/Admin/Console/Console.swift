// The admin console: Redis's protocol on a Unix socket, for redis-cli and scripts.
//
//     redis-cli -s admin.sock ──► accept ── SO_PEERCRED ──► a thread for each client ──► ConsoleCommands
//                                 0600      root or the      blocks until there is
//                                           proxy's user     something to read
//
// A thread each, because an order may take its time (PAUSE waits until nothing is under way) while
// another client gives another (RESUME). They are few, and wait in the kernel. Nothing of theirs runs
// on a worker's thread but the order itself.

import Glibc
package import Logging
import Synchronization
package import Transport

/// See the head of this file. Usable from any thread.
package final class Console: Sendable {
    /// Clients at the same time.
    static let mostClients = 16
    /// How long a client may leave its answer unread, in milliseconds.
    private static let sendPatience: Int32 = 10_000

    /// Pause before it tries again to listen, in microseconds.
    private static let pause: UInt32 = 100_000
    /// The same while a process that has handed over may not have let go of the path yet.
    private static let shortPause: UInt32 = 5_000

    private let path: String
    /// Until then the path may be another's still.
    private let deadline: ContinuousClock.Instant
    private let commands: ConsoleCommands
    private let logger: Logger
    private let stopping = Mailbox<Void>()
    private let isStopped = Atomic(false)
    private let acceptor: Mutex<Thread?>
    /// Descriptors of clients; nil: it has stopped.
    private let clients = Mutex<Set<Int32>?>([])

    /// Listens and serves from now on. Where it cannot listen, because another process still does, or
    /// the path is wrong, it says so in the log and tries again.
    ///
    /// - Parameters:
    ///   - path: of the socket, whose mode is 0600.
    ///   - patience: how long the path may be another's without a word in the log.
    /// - Throws: `SystemError` if there can be no thread.
    package init(
        path: String, within patience: Duration = .zero, actions: ConsoleActions, logger: Logger
    ) throws(SystemError) {
        self.path = path
        deadline = ContinuousClock.now + patience
        commands = ConsoleCommands(actions: actions)
        self.logger = logger
        acceptor = Mutex(nil)
        let thread = try Thread.start(name: "console") { [self] in accept() }
        acceptor.withLock { $0 = thread }
    }

    /// Closes the socket and hangs up on clients. May be called twice.
    package func stop() {
        isStopped.store(true, ordering: .releasing)
        stopping.post(())
        acceptor.withLock { thread in
            defer { thread = nil }
            return thread
        }?.join()
        clients.withLock { clients in
            for descriptor in clients ?? [] { shutdown(descriptor, Int32(SHUT_RDWR)) }
            clients = nil
        }
    }

    // MARK: Accepting

    private func accept() {
        guard let socket = listen() else { return }
        defer { socket.close() }
        let loop: EventLoop
        do throws(SystemError) {
            loop = try EventLoop()
        } catch {
            logger.error("the admin console cannot serve: \(error)")
            return
        }
        let door = UnsafeMutablePointer<Door>.allocate(capacity: 1)
        door.initialize(to: Door(console: self, socket: socket))
        defer {
            door.deinitialize(count: 1)
            door.deallocate()
        }
        door.pointee.watcher.prepare(
            loop: loop,
            descriptor: socket.descriptor,
            callback: { owner, _ in
                let door = owner.assumingMemoryBound(to: Door.self)
                door.pointee.console.acceptClients(of: door.pointee.socket)
            },
            owner: UnsafeMutableRawPointer(door)
        )
        door.pointee.watcher.start(.read)
        stopping.attach(to: loop) { _ in loop.stop() }
        loop.run()
        door.pointee.watcher.stop()
        stopping.close()
    }

    /// nil: it was stopped before it could.
    private func listen() -> ListeningSocket? {
        var options = ListenOptions()
        options.unixMode = 0o600
        var hasComplained = false
        while !isStopped.load(ordering: .acquiring) {
            do throws(ListenError) {
                let sockets = try ListeningSocket.bind(to: .unix(path: path), options: options)
                logger.info("admin console on unix:\(path)")
                return sockets.first
            } catch {
                guard ContinuousClock.now >= deadline else {
                    usleep(Self.shortPause)
                    continue
                }
                if !hasComplained {
                    logger.warning("the admin console waits: \(error); it is tried again and again")
                }
                hasComplained = true
                usleep(Self.pause)
            }
        }
        return nil
    }

    /// What the watcher of the socket lives in.
    private struct Door {
        let console: Console
        let socket: ListeningSocket
        var watcher = IOWatcher()
    }

    private func acceptClients(of socket: ListeningSocket) {
        while true {
            switch Socket.accept(socket.descriptor) {
            case .accepted(let descriptor, _): admit(descriptor)
            case .aborted: continue
            case .wouldBlock: return
            case .exhausted(let error), .failed(let error):
                logger.warning("the admin console cannot take a client in: \(error)")
                // Whoever waits is told of again, but not in a tight loop.
                usleep(100_000)
                return
            }
        }
    }

    private func admit(_ descriptor: Int32) {
        let peer = PeerCredentials.ofUnixPeer(descriptor, withGroups: false)
        guard let peer, peer.userID == 0 || peer.userID == geteuid() else {
            logger.warning(
                "refused a client of the admin console: wanted root or the proxy's own user",
                metadata: ["uid": "\(peer.map { "\($0.userID)" } ?? "unknown")"])
            turnAway(descriptor, "this console is for root and for the user that the proxy runs as")
            return
        }
        let hasRoom = clients.withLock { clients in
            guard let count = clients?.count, count < Self.mostClients else { return false }
            clients?.insert(descriptor)
            return true
        }
        guard hasRoom else {
            turnAway(descriptor, "max number of clients reached, which are \(Self.mostClients)")
            return
        }
        do throws(SystemError) {
            _ = try Thread.start(name: "console client") { [self] in
                serve(descriptor, as: peer.userID)
                release(descriptor)
            }
        } catch {
            logger.warning("the admin console cannot take a client in: \(error)")
            release(descriptor)
        }
    }

    private func turnAway(_ descriptor: Int32, _ text: String) {
        let reply = ConsoleReply.error(text).bytes(protocolVersion: 2)
        // It fits into an empty socket, or nobody reads it.
        _ = reply.withUnsafeBytes { Socket.send(descriptor, $0) }
        Socket.close(descriptor)
    }

    private func release(_ descriptor: Int32) {
        clients.withLock { clients in
            clients?.remove(descriptor)
            Socket.close(descriptor)
        }
    }

    // MARK: One client

    private func serve(_ descriptor: Int32, as userID: UInt32) {
        var requests = ConsoleRequests()
        var protocolVersion = 2
        while wait(descriptor, Int16(POLLIN), -1) {
            let received = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
                let result = Socket.receive(descriptor, into: buffer)
                if case .bytes(let count) = result {
                    requests.append(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                }
                return result
            }
            switch received {
            case .bytes: break
            case .wouldBlock: continue
            case .end, .failed: return
            }
            scanning: while true {
                let reply: ConsoleReply
                switch requests.next() {
                case .incomplete: break scanning
                case .broken(let text):
                    _ = send(ConsoleReply.error(text).bytes(protocolVersion: 2), to: descriptor)
                    return
                case .request(let words):
                    switch words[0].uppercased() {
                    case "QUIT":
                        _ = send(
                            ConsoleReply.status("OK").bytes(protocolVersion: 2), to: descriptor)
                        return
                    case "HELLO": reply = greet(words, &protocolVersion)
                    default:
                        note(words, userID)
                        reply = commands.answer(words)
                    }
                }
                guard send(reply.bytes(protocolVersion: protocolVersion), to: descriptor) else {
                    return
                }
            }
        }
    }

    /// Orders are worth a line in the log, questions are not.
    private func note(_ words: [String], _ userID: UInt32) {
        let order = words[0].uppercased()
        guard ["PAUSE", "RESUME", "RECONNECT", "RENEW", "KILL", "RELOAD", "DRAIN"].contains(order)
        else { return }
        let subject = words.dropFirst().prefix(1).map { " \($0.prefix(64))" }.joined()
        logger.notice("console: \(order)\(subject)", metadata: ["uid": "\(userID)"])
    }

    /// HELLO: the only way to speak of protocols. A login is nobody's business here.
    private func greet(_ words: [String], _ protocolVersion: inout Int) -> ConsoleReply {
        if words.count > 1 {
            guard let wanted = Int(words[1]), wanted == 2 || wanted == 3 else {
                return .error("HELLO: wanted 2 or 3, got '\(words[1].prefix(64))'")
            }
            protocolVersion = wanted
        }
        return .map([
            ("server", .text("redis-auth-proxy")), ("proto", .number(protocolVersion)),
            ("mode", .text("console")),
        ])
    }

    /// False: it does not take what it is sent.
    private func send(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let result = bytes[sent...].withUnsafeBytes { Socket.send(descriptor, $0) }
            switch result {
            case .sent(let count): sent += count
            case .wouldBlock:
                guard wait(descriptor, Int16(POLLOUT), Self.sendPatience) else { return false }
            case .failed: return false
            }
        }
        return true
    }

    /// - Parameter milliseconds: -1: for ever.
    private func wait(_ descriptor: Int32, _ event: Int16, _ milliseconds: Int32) -> Bool {
        var query = pollfd(fd: descriptor, events: event, revents: 0)
        while true {
            let ready = poll(&query, 1, milliseconds)
            if ready < 0 && errno == EINTR { continue }
            return ready > 0
        }
    }
}
