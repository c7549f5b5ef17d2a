import Glibc
import Testing
import Transport

@Suite struct SocketTests {
    @Test("A receive says bytes, then that it would block, then the end")
    func receives() throws {
        let pair = try SocketPair()
        try send([1, 2, 3], to: pair.left)
        #expect(received(from: pair.right) == ([1, 2, 3], .wouldBlock))
        Socket.shutdownWrite(pair.left)
        #expect(received(from: pair.right) == ([], .end))
    }

    @Test("A send into a full socket takes a part and then would block")
    func sendsPart() throws {
        let pair = try SocketPair()
        let bytes = [UInt8](repeating: 7, count: 8 << 20)
        let first = bytes.withUnsafeBytes { Socket.send(pair.left, $0) }
        guard case .sent(let count) = first else {
            Issue.record("the first send gave \(first)")
            return
        }
        #expect(count > 0 && count < bytes.count)
        #expect(bytes.withUnsafeBytes { Socket.send(pair.left, $0) } == .wouldBlock)
    }

    @Test("A send to a peer that is gone fails with EPIPE and raises no signal")
    func sendsToNobody() throws {
        let pair = try SocketPair()
        pair.closeRight()
        let expected = SendResult.failed(SystemError(call: "send", number: EPIPE))
        #expect([UInt8(1)].withUnsafeBytes { Socket.send(pair.left, $0) } == expected)
        let vector = [UInt8(1)].withUnsafeBytes { Socket.send(pair.left, $0, $0) }
        #expect(vector == .failed(SystemError(call: "sendmsg", number: EPIPE)))
    }

    @Test("A look at a socket shows the end and the loss, whatever is still unread")
    func probes() throws {
        let pair = try SocketPair()
        try send([1, 2, 3], to: pair.left)
        #expect(Socket.probe(pair.right) == .open)
        Socket.shutdownWrite(pair.left)
        #expect(Socket.probe(pair.right) == .ended)
        #expect(received(from: pair.right) == ([1, 2, 3], .end))
        let (client, server) = try tcpPair()
        defer { Socket.close(server) }
        try send([1, 2, 3], to: client)
        try waitUntilReady(server, Int32(POLLIN))
        #expect(Socket.probe(server) == .open)
        #expect(Socket.setResetOnClose(client) == nil)
        Socket.close(client)
        try waitUntilReady(server, Int32(POLLHUP))
        #expect(Socket.probe(server) == .lost)
    }

    @Test("A reset connection fails the receive with ECONNRESET")
    func receivesReset() throws {
        let (client, server) = try tcpPair()
        defer { Socket.close(server) }
        #expect(Socket.setResetOnClose(client) == nil)
        Socket.close(client)
        try waitUntilReady(server, Int32(POLLIN))
        let error = SystemError(call: "recv", number: ECONNRESET)
        #expect(received(from: server) == ([], .failed(error)))
    }

    @Test("A vectored send keeps the order and counts both parts")
    func sendsVector() throws {
        let pair = try SocketPair()
        let result = [UInt8(1), 2].withUnsafeBytes { first in
            [UInt8(3), 4, 5].withUnsafeBytes { Socket.send(pair.left, first, $0) }
        }
        #expect(result == .sent(5))
        #expect(received(from: pair.right).bytes == [1, 2, 3, 4, 5])
        let half = [UInt8(6)].withUnsafeBytes {
            Socket.send(pair.left, UnsafeRawBufferPointer(start: nil, count: 0), $0)
        }
        #expect(half == .sent(1))
        #expect(received(from: pair.right).bytes == [6])
    }

    @Test("An accepted connection is non-blocking, close-on-exec and knows its peer")
    func accepts() throws {
        let listener = try loopbackListener()
        guard case .wouldBlock = Socket.accept(listener.descriptor) else {
            Issue.record("an accept without a client must say that it would block")
            return
        }
        let client = try connected(to: listener.address)
        defer { Socket.close(client) }
        let (server, peer) = try accepted(from: listener)
        defer { Socket.close(server) }
        #expect(peer == Socket.localAddress(client))
        #expect(peer.isLoopback)
        #expect(fcntl(server, F_GETFL) & O_NONBLOCK != 0)
        #expect(fcntl(server, F_GETFD) & FD_CLOEXEC != 0)
        #expect(fcntl(client, F_GETFL) & O_NONBLOCK != 0)
        #expect(fcntl(client, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test("A client that is gone before the accept does not harm the listener")
    func acceptsAfterReset() throws {
        let listener = try loopbackListener()
        let gone = try connected(to: listener.address)
        _ = Socket.setResetOnClose(gone)
        Socket.close(gone)
        let client = try connected(to: listener.address)
        defer { Socket.close(client) }
        // Linux hands the dead connection out; its first receive tells.
        let (dead, _) = try accepted(from: listener)
        defer { Socket.close(dead) }
        #expect(
            received(from: dead).1 == .failed(SystemError(call: "recv", number: ECONNRESET)))
        let (server, peer) = try accepted(from: listener)
        defer { Socket.close(server) }
        #expect(peer == Socket.localAddress(client))
    }

    @Test("An accept on what is no listener fails")
    func acceptsOnNothing() throws {
        let pair = try SocketPair()
        guard case .failed(let error) = Socket.accept(pair.left) else {
            Issue.record("an accept on a connected socket must fail")
            return
        }
        #expect(error.call.description == "accept4")
    }

    @Test("Without a descriptor left an accept is exhausted and a connect fails with EMFILE")
    func runsOutOfDescriptors() async {
        // In a process of its own: the limit is the process's.
        await #expect(processExitsWith: .success) {
            let listener = try loopbackListener()
            let clients = [
                try connected(to: listener.address), try connected(to: listener.address),
            ]
            try waitUntilReady(listener.descriptor, Int32(POLLIN))
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            let next = dup(listener.descriptor)
            limit.rlim_cur = rlim_t(next) + 8
            #expect(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
            while dup(listener.descriptor) >= 0 {}
            #expect(errno == EMFILE)

            for _ in 0..<3 {
                guard case .exhausted(let error) = Socket.accept(listener.descriptor) else {
                    Issue.record("an accept without a descriptor must be exhausted")
                    return
                }
                #expect(error == SystemError(call: "accept4", number: EMFILE))
            }
            guard case .failed(let error) = Socket.connect(to: listener.address) else {
                Issue.record("a connect without a descriptor must fail")
                return
            }
            #expect(error == SystemError(call: "socket", number: EMFILE))

            // The connection waited in the backlog: one descriptor later it is there.
            Socket.close(clients[0])
            guard case .accepted = Socket.accept(listener.descriptor) else {
                Issue.record("the waiting connection must be accepted")
                return
            }
        }
    }

    @Test("A connect to a port without a listener is refused")
    func connectsToNobody() throws {
        let listener = try loopbackListener()
        let address = listener.address
        listener.close()
        let error = try #require(throws: SystemError.self) { try connected(to: address) }
        #expect(error == SystemError(call: "connect", number: ECONNREFUSED))
        #expect(error.description == "connect: Connection refused")
    }

    @Test("A connect that meets itself counts as refused")
    func connectsToItself() throws {
        // A socket bound to a port and connected to the same port is a simultaneous open.
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
        defer { Socket.close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                var length = size
                guard bind(descriptor, address, size) == 0,
                    getsockname(descriptor, address, &length) == 0
                else { return errno }
                return connect(descriptor, address, size) == 0 || errno == EINPROGRESS ? 0 : errno
            }
        }
        #expect(result == 0)
        try waitUntilReady(descriptor, Int32(POLLOUT))
        #expect(
            Socket.finishConnect(descriptor) == SystemError(call: "connect", number: ECONNREFUSED))
    }

    @Test("A Unix connect is done at once and its client has no name")
    func connectsUnix() throws {
        let directory = try TemporaryDirectory()
        let listener = try #require(
            try ListeningSocket.bind(to: .unix(path: directory.path + "/s")).first)
        guard case .connected(let client) = Socket.connect(to: listener.address) else {
            Issue.record("a Unix connect must be done at once")
            return
        }
        defer { Socket.close(client) }
        #expect(Socket.finishConnect(client) == nil)
        let (server, peer) = try accepted(from: listener)
        defer { Socket.close(server) }
        #expect(peer.description == "unix:(unnamed)")
        #expect(peer.isUnix)
    }

    @Test("What a listening socket accepts sends small writes at once if the socket does")
    func inheritsNoDelay() throws {
        let listener = try #require(
            try ListeningSocket.bind(to: .tcp(host: "127.0.0.1", port: 0)).first)
        #expect(Socket.setNoDelay(listener.descriptor) == nil)
        let client: Int32
        switch Socket.connect(to: listener.address) {
        case .connected(let descriptor), .inProgress(let descriptor): client = descriptor
        case .failed(let error): throw error
        }
        defer { Socket.close(client) }
        let (server, _) = try accepted(from: listener)
        defer { Socket.close(server) }
        var value: Int32 = -1
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(server, Int32(IPPROTO_TCP), TCP_NODELAY, &value, &length)
        #expect(value == 1)
    }

    @Test("TCP options are set as asked")
    func setsOptions() throws {
        let (client, server) = try tcpPair()
        defer {
            Socket.close(client)
            Socket.close(server)
        }
        let keepAlive = KeepAlive(idleSeconds: 11, intervalSeconds: 7, probes: 3)
        #expect(Socket.setNoDelay(client) == nil)
        #expect(Socket.setKeepAlive(client, keepAlive) == nil)
        #expect(Socket.setUserTimeout(client, milliseconds: 12_345) == nil)
        func value(_ level: Int32, _ option: Int32) -> Int32 {
            var value: Int32 = -1
            var length = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(client, level, option, &value, &length)
            return value
        }
        let tcp = Int32(IPPROTO_TCP)
        #expect(value(tcp, TCP_NODELAY) == 1)
        #expect(value(SOL_SOCKET, SO_KEEPALIVE) == 1)
        #expect(value(tcp, TCP_KEEPIDLE) == 11)
        #expect(value(tcp, TCP_KEEPINTVL) == 7)
        #expect(value(tcp, TCP_KEEPCNT) == 3)
        #expect(value(tcp, TCP_USER_TIMEOUT) == 12_345)
    }

    @Test("An option the socket does not have is an error, not a trap")
    func refusesOption() throws {
        let pair = try SocketPair()
        #expect(
            Socket.setNoDelay(pair.left) == SystemError(call: "setsockopt", number: EOPNOTSUPP))
    }
}

@Suite struct ProcessLimitsTests {
    @Test("The descriptor limit is raised to the hard one")
    func raisesDescriptorLimit() async {
        await #expect(processExitsWith: .success) {
            let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
            var limit = rlimit()
            getrlimit(resource, &limit)
            limit.rlim_cur = 100
            #expect(setrlimit(resource, &limit) == 0)
            #expect(ProcessLimits.raiseDescriptorLimit() == Int(clamping: limit.rlim_max))
            var after = rlimit()
            getrlimit(resource, &after)
            #expect(after.rlim_cur == limit.rlim_max)
        }
    }

    @Test("Core dumps are off in both ways")
    func disablesCoreDumps() async {
        await #expect(processExitsWith: .success) {
            try ProcessLimits.disableCoreDumps()
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit)
            #expect(limit.rlim_cur == 0 && limit.rlim_max == 0)
            #expect(!ProcessLimits.isDumpable)
        }
    }
}
