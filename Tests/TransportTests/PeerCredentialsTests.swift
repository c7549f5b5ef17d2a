// Who is at the other end, on real sockets of real users. Children of these tests become other users,
// which only root may; the rest runs as anybody.

import Glibc
import Testing
import Transport

@Suite(.serialized) struct `The other end of a Unix socket` {
    @Test func `is attested with its user, groups and process`() throws {
        let pair = try UnixPair.make()
        let peer = try #require(PeerCredentials.ofUnixPeer(pair.server, withGroups: true))
        #expect(peer.userID == geteuid())
        #expect(peer.processID == getpid())
        let groups = try #require(peer.groupIDs)
        #expect(groups.first == getegid())
        #expect(Set(groups.dropFirst()) == Set(ownGroups()))
    }

    @Test func `is not asked for its groups when nobody wants them`() throws {
        let pair = try UnixPair.make()
        let peer = try #require(PeerCredentials.ofUnixPeer(pair.server, withGroups: false))
        #expect(peer.groupIDs == nil)
    }

    @Test func `is nobody for a descriptor that is no Unix socket`() throws {
        let (client, server) = try tcpPair()
        defer {
            Socket.close(client)
            Socket.close(server)
        }
        // TCP has the option too and says pid 0, uid -1.
        #expect(PeerCredentials.ofUnixPeer(server, withGroups: true) == nil)
        #expect(PeerCredentials.ofUnixPeer(-1, withGroups: true) == nil)
    }

    @Test(.enabled(if: geteuid() == 0), arguments: [0, 1, 63, 64, 65, 1_000, 65_536])
    func `has any number of groups`(count: Int) throws {
        // 65534 has no meaning of its own and is left out, so the last ones are beyond it.
        let groups = (0..<count).map { UInt32(100_000 + $0) }
        let before = ownGroups()
        try #require(setgroups(groups.count, groups) == 0)
        defer { setgroups(before.count, before) }
        let pair = try UnixPair.make()
        let peer = try #require(PeerCredentials.ofUnixPeer(pair.server, withGroups: true))
        #expect(peer.groupIDs == [getegid()] + groups)
    }

    @Test(.enabled(if: geteuid() == 0))
    func `of the overflow user is nobody, and in the overflow group is in none`() throws {
        let pair = try UnixPair.make(groups: [65_534, 7])
        let peer = try #require(PeerCredentials.ofUnixPeer(pair.server, withGroups: true))
        #expect(peer.groupIDs == [getegid(), 7])
        #expect(!PeerCredentials.isAccount(65_534))
        #expect(!PeerCredentials.isAccount(.max))
        #expect(PeerCredentials.isAccount(0))
        #expect(PeerCredentials.isAccount(65_533))
    }
}

@Suite struct `The owner of a TCP client's socket` {
    @Test(arguments: ["127.0.0.1", "127.0.0.2", "::1"])
    func `is found over loopback`(host: String) throws {
        let owners = try SocketOwners()
        let pair = try TCPPair.make(host)
        #expect(owners.owner(of: pair.server, from: pair.peer) == .user(geteuid()))
    }

    @Test func `is found for an IPv6 socket that is connected to an IPv4 one`() throws {
        let owners = try SocketOwners()
        let listener = try loopbackListener()
        let port = try #require(listener.address.port)
        let mapped = try #require(SocketAddress(literal: "::ffff:127.0.0.1", port: port))
        let client = try connected(to: mapped)
        defer { Socket.close(client) }
        let (server, peer) = try accepted(from: listener)
        defer { Socket.close(server) }
        #expect(owners.owner(of: server, from: peer) == .user(geteuid()))
    }

    @Test(.enabled(if: geteuid() == 0), arguments: ["127.0.0.1", "::1"])
    func `is the one who made the socket, whoever uses it`(host: String) throws {
        let owners = try SocketOwners()
        let pair = try TCPPair.make(host) { client in
            #expect(fchown(client, 4_242, 4_343) == 0)
        }
        #expect(owners.owner(of: pair.server, from: pair.peer) == .user(4_242))
    }

    @Test(.enabled(if: geteuid() == 0))
    func `is nobody when it is the overflow user`() throws {
        let owners = try SocketOwners()
        let pair = try TCPPair.make("127.0.0.1") { #expect(fchown($0, 65_534, 65_534) == 0) }
        #expect(owners.owner(of: pair.server, from: pair.peer) == .unknown(.overflow))
    }

    @Test(arguments: ["127.0.0.1", "::1"])
    func `is nobody once the client has closed, although the kernel then says 0`(
        host: String
    ) throws {
        let owners = try SocketOwners()
        var pair = try TCPPair.make(host)
        pair.closeClient()
        let answer = owners.owner(of: pair.server, from: pair.peer)
        #expect(answer == .unknown(.notEstablished) || answer == .unknown(.noSocket))
    }

    @Test func `is nobody once the client has ended its side`() throws {
        let owners = try SocketOwners()
        let pair = try TCPPair.make("127.0.0.1")
        Socket.shutdownWrite(pair.client)
        #expect(owners.owner(of: pair.server, from: pair.peer) == .unknown(.notEstablished))
    }

    @Test func `is nobody once our side is closed for sending`() throws {
        let owners = try SocketOwners()
        let pair = try TCPPair.make("127.0.0.1")
        Socket.shutdownWrite(pair.server)
        let answer = owners.owner(of: pair.server, from: pair.peer)
        // The client's side is in CLOSE_WAIT by then.
        #expect(answer == .unknown(.notEstablished) || answer == .unknown(.weAreClosed))
    }

    @Test func `is nobody after a reset`() throws {
        let owners = try SocketOwners()
        var pair = try TCPPair.make("127.0.0.1")
        _ = Socket.setResetOnClose(pair.client)
        pair.closeClient()
        guard case .unknown = owners.owner(of: pair.server, from: pair.peer) else {
            Issue.record("somebody owns a socket that was reset")
            return
        }
    }

    /// The kernel's look-up falls back to the socket that listens on the client's port: a client
    /// that is gone would be whoever listens there now.
    @Test func `is never who listens on the client's port`() throws {
        let owners = try SocketOwners()
        // A port that has become free may be somebody else's a moment later.
        for _ in 0..<20 {
            var pair = try TCPPair.make("127.0.0.1")
            let port = try #require(pair.peer.port)
            _ = Socket.setResetOnClose(pair.client)
            pair.closeClient()
            guard
                let listener = try? ListeningSocket.bind(to: .tcp(host: "127.0.0.1", port: port))
            else { continue }
            defer { for socket in listener { socket.close() } }
            guard case .unknown = owners.owner(of: pair.server, from: pair.peer) else {
                Issue.record("the listener was taken for the client")
                return
            }
            return
        }
        Issue.record("no port of a client could be listened on")
    }

    @Test func `is not asked for outside loopback`() throws {
        let owners = try SocketOwners()
        let pair = try TCPPair.make("127.0.0.1")
        let foreign = try #require(SocketAddress(literal: "192.0.2.1", port: 1))
        #expect(owners.owner(of: pair.server, from: foreign) == .unknown(.notLoopback))
        #expect(owners.owner(of: -1, from: pair.peer) == .unknown(.notLoopback))
    }

    @Test func `is another's for another connection`() throws {
        let owners = try SocketOwners()
        let one = try TCPPair.make("127.0.0.1")
        let two = try TCPPair.make("127.0.0.1")
        // Asked about one's descriptor with two's address: no such connection.
        #expect(owners.owner(of: one.server, from: two.peer) == .unknown(.noSocket))
    }

    @Test func `is found a thousand times with one netlink socket`() throws {
        let owners = try SocketOwners()
        let pair = try TCPPair.make("127.0.0.1")
        for _ in 0..<1_000 {
            #expect(owners.owner(of: pair.server, from: pair.peer) == .user(geteuid()))
        }
    }

    @Test func `costs what it costs`() throws {
        let owners = try SocketOwners()
        let tcp = try TCPPair.make("127.0.0.1")
        let unix = try UnixPair.make()
        func microseconds(_ body: () -> Void) -> Double {
            let count = 2_000
            let start = monotonicNanoseconds()
            for _ in 0..<count { body() }
            return Double(monotonicNanoseconds() - start) / 1_000 / Double(count)
        }
        let byTCP = microseconds { _ = owners.owner(of: tcp.server, from: tcp.peer) }
        let byUser = microseconds {
            _ = PeerCredentials.ofUnixPeer(unix.server, withGroups: false)
        }
        let byGroups = microseconds {
            _ = PeerCredentials.ofUnixPeer(unix.server, withGroups: true)
        }
        print(
            "identification, µs per connection: TCP \(byTCP), Unix \(byUser), with groups \(byGroups)"
        )
    }
}

/// What the kernel may answer, judged without a kernel.
@Suite struct `A kernel's answer about a socket` {
    private let client = SocketOwners.End(high: 0, low: 0xffff_7f00_0001, port: 50_000)
    private let server = SocketOwners.End(high: 0, low: 0xffff_7f00_0001, port: 6_379)

    private func answer(
        state: Int = TCP_ESTABLISHED,
        userID: UInt32 = 33,
        inode: UInt32 = 1,
        _ change: (inout SocketOwners.Found) -> Void = { _ in }
    ) -> SocketOwners.Answer {
        var found = SocketOwners.Found(
            source: client, destination: server, state: state, userID: userID, inode: inode)
        change(&found)
        return SocketOwners.judge(found, client, server)
    }

    @Test func `counts when all is as it should be`() {
        #expect(answer() == .user(33))
        #expect(answer(userID: 0) == .user(0))
    }

    @Test(arguments: 0...13) func `counts for established sockets alone`(state: Int) {
        #expect((answer(state: state) == .user(33)) == (state == TCP_ESTABLISHED))
    }

    @Test func `does not count without an inode`() {
        #expect(answer(userID: 0, inode: 0) == .unknown(.noOwner))
    }

    @Test func `does not count for the overflow user`() {
        #expect(answer(userID: 65_534) == .unknown(.overflow))
        #expect(answer(userID: .max) == .unknown(.overflow))
    }

    @Test func `does not count about another connection`() {
        #expect(answer { $0.source.port = 1 } == .unknown(.otherConnection))
        #expect(answer { $0.destination.port = 1 } == .unknown(.otherConnection))
        #expect(answer { $0.source.low = 1 } == .unknown(.otherConnection))
        #expect(answer { $0.destination.high = 1 } == .unknown(.otherConnection))
    }
}

// MARK: - Sockets

/// Both ends of a Unix connection, made as a client and a server make it: a socketpair has no
/// connecting side.
private struct UnixPair: ~Copyable {
    let client: Int32
    let server: Int32

    /// - Parameter groups: the supplementary groups of the connecting side, if they are to be others
    ///   than the test's.
    static func make(groups: [UInt32]? = nil) throws -> UnixPair {
        let path = "/tmp/peer-\(getpid())-\(UInt32.random(in: .min ... .max)).sock"
        let listener = try #require(try ListeningSocket.bind(to: .unix(path: path)).first)
        defer { listener.close() }
        let before = ownGroups()
        if let groups { try #require(setgroups(groups.count, groups) == 0) }
        defer { if groups != nil { setgroups(before.count, before) } }
        let client = try connected(to: listener.address)
        return UnixPair(client: client, server: try accepted(from: listener).0)
    }

    deinit {
        Socket.close(client)
        Socket.close(server)
    }
}

/// Both ends of a TCP connection over loopback.
private struct TCPPair: ~Copyable {
    let client: Int32
    let server: Int32
    let peer: SocketAddress
    private var isOpen = true

    private init(client: Int32, server: Int32, peer: SocketAddress) {
        self.client = client
        self.server = server
        self.peer = peer
    }

    /// - Parameter prepare: gets the client's end before anything is asked about it.
    static func make(
        _ host: String, _ prepare: (Int32) -> Void = { _ in }
    ) throws -> TCPPair {
        let listener = try #require(try ListeningSocket.bind(to: .tcp(host: host, port: 0)).first)
        defer { listener.close() }
        let client = try connected(to: listener.address)
        prepare(client)
        let (server, peer) = try accepted(from: listener)
        return TCPPair(client: client, server: server, peer: peer)
    }

    mutating func closeClient() {
        Socket.close(client)
        isOpen = false
    }

    deinit {
        if isOpen { Socket.close(client) }
        Socket.close(server)
    }
}

private func ownGroups() -> [UInt32] {
    var groups = [gid_t](repeating: 0, count: 65_536)
    let count = getgroups(Int32(groups.count), &groups)
    return Array(groups.prefix(max(0, Int(count))))
}
