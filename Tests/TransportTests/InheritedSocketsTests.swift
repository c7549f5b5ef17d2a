// Sockets that somebody else bound, and descriptors on their way between processes.

import Glibc
import Testing
import Transport

@Suite(.serialized) struct `An inherited socket` {
    private func path(_ name: String) -> String { "/tmp/inherited-\(getpid())-\(name)" }

    private func isListening(_ descriptor: Int32) -> Bool {
        Socket.option(descriptor, SO_ACCEPTCONN) == 1
    }

    @Test func `is taken by the listener of its address, once`() throws {
        let bound = try #require(
            try ListeningSocket.bind(to: .tcp(host: "127.0.0.1", port: 0)).first)
        let sockets = InheritedSockets(from: .manager)
        try sockets.add(bound.descriptor, name: "redis")
        #expect(sockets.untaken == ["\(bound.address) (redis)"])
        let port = try #require(bound.address.port)
        let endpoint = Endpoint.tcp(host: "127.0.0.1", port: port)
        let taken = try ListeningSocket.bind(to: endpoint, inheriting: sockets)
        // A socket that nobody holds any more is given back.
        withExtendedLifetime(taken) {
            #expect(taken.map(\.descriptor) == [bound.descriptor])
            #expect(sockets.untaken.isEmpty)
            // The second listener of that address has to bind, and cannot.
            #expect(throws: ListenError.self) {
                try ListeningSocket.bind(to: endpoint, inheriting: sockets)
            }
        }
        bound.close()
    }

    @Test func `of a manager stays open and can be taken again`() throws {
        let place = path("manager")
        let bound = try #require(try ListeningSocket.bind(to: .unix(path: place)).first)
        let sockets = InheritedSockets(from: .manager)
        try sockets.add(bound.descriptor)
        for _ in 0..<2 {
            let taken = try #require(sockets.take(bound.address))
            taken.close()
            #expect(isListening(bound.descriptor))
            #expect(access(place, F_OK) == 0)
            #expect(sockets.untaken.count == 1)
        }
        bound.close()
    }

    @Test func `of another process leaves its file alone until it is this one's`() throws {
        let place = path("predecessor")
        let bound = try #require(try ListeningSocket.bind(to: .unix(path: place)).first)
        bound.share(true)
        for isOurs in [false, true] {
            let sockets = InheritedSockets(from: .predecessor)
            try sockets.add(dup(bound.descriptor), file: bound.file)
            let taken = try #require(sockets.take(bound.address))
            if isOurs { taken.share(false) }
            taken.close()
            #expect((access(place, F_OK) == 0) == !isOurs)
        }
        bound.close()
    }

    @Test func `of another process is not taken if its file is another's`() throws {
        let place = path("replaced")
        let bound = try #require(try ListeningSocket.bind(to: .unix(path: place)).first)
        let sockets = InheritedSockets(from: .predecessor)
        try sockets.add(dup(bound.descriptor), file: bound.file)
        unlink(place)
        #expect(sockets.take(bound.address) == nil)
        sockets.closeRest()
        #expect(sockets.untaken.isEmpty)
        bound.close()
    }

    @Test func `must be a stream socket that listens`() throws {
        let sockets = InheritedSockets(from: .manager)
        let datagrams = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        let unconnected = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let file = open("/dev/null", O_RDONLY)
        defer { for one in [datagrams, unconnected, file] { close(one) } }
        for one in [datagrams, unconnected, file, 9_999] {
            #expect(throws: InheritanceError.self) { try sockets.add(one) }
        }
        #expect(sockets.untaken.isEmpty)
    }

    @Test func `arrives by the words it was sent with`() throws {
        var ends: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        defer { for end in ends { close(end) } }
        let bound = try #require(
            try ListeningSocket.bind(to: .tcp(host: "127.0.0.1", port: 0)).first)
        defer { bound.close() }
        let text = Array("socket\n".utf8)
        let three = [Int32](repeating: bound.descriptor, count: 3)
        #expect(Socket.send(ends[0], text, passing: three) == .sent(text.count))
        #expect(Socket.send(ends[0], text, passing: []) == .sent(text.count))
        var buffer = [UInt8](repeating: 0, count: 64)
        let first = buffer.withUnsafeMutableBytes { Socket.receivePassed(ends[1], into: $0) }
        guard case .bytes(text.count, let passed) = first else {
            Issue.record("got \(first)")
            return
        }
        #expect(passed.count == 3)
        for descriptor in passed {
            #expect(Socket.localAddress(descriptor) == bound.address)
            #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
            close(descriptor)
        }
        let second = buffer.withUnsafeMutableBytes { Socket.receivePassed(ends[1], into: $0) }
        guard case .bytes(text.count, let none) = second else {
            Issue.record("got \(second)")
            return
        }
        #expect(none.isEmpty)
        #expect(buffer.prefix(text.count).elementsEqual(text))
    }
}
