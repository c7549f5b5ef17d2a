import COpenSSL
import Glibc
import Testing
import Transport

@Suite struct SecureStreamTests {
    @Test(
        "Big transfers both ways arrive whole, whatever the pieces",
        arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func transfersBothWays(version: Int32) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let server = try ServerContext(ServerSettings(maximumVersion: version))
        let pair = try TLSPair(trustingContext(), server)
        try pair.establish()

        let up = generator.bytes(3_000_000)
        let down = generator.bytes(3_000_000)
        var upSent = 0
        var downSent = 0
        var downReceived: [UInt8] = []
        var turns = 0
        while pair.serverReceived.count < up.count || downReceived.count < down.count {
            turns += 1
            guard turns < 1_000_000 else {
                Issue.record("the transfer does not end, seed \(seed)")
                return
            }
            if upSent < up.count {
                let count = min(Int.random(in: 1...200_000, using: &generator), up.count - upSent)
                #expect(pair.clientSend(Array(up[upSent..<upSent + count])) == nil)
                upSent += count
            }
            try pair.carryToServer()
            pair.runServer()
            if downSent < down.count && pair.wireCount < 1_000_000 {
                let count = min(
                    Int.random(in: 1...200_000, using: &generator), down.count - downSent)
                try pair.serverSend(Array(down[downSent..<downSent + count]))
                downSent += count
            }
            _ = try pair.carryToClient(limit: Int.random(in: 1...300_000, using: &generator))
            _ = pair.stream.receiveCiphertext(from: pair.sockets.left)
            let size = Int.random(in: 1...100_000, using: &generator)
            let isOpen = try pair.decrypt(into: &downReceived, bufferSize: size)
            #expect(isOpen)
        }
        #expect(pair.serverReceived == up, "seed \(seed)")
        #expect(downReceived == down, "seed \(seed)")
        #expect(pair.pool.lentCount == 0)
    }

    @Test("Records arrive whole when cut at every byte")
    func receivesCutRecords() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        for message in 1...3 {
            let bytes = (0..<40).map { UInt8($0 * message) }
            try pair.serverSend(bytes)
            let length = pair.wireCount
            for cut in 1..<length {
                // The same message again, cut one byte later each time.
                #expect(try pair.carryToClient(limit: cut) == cut)
                _ = pair.stream.receiveCiphertext(from: pair.sockets.left)
                var all: [UInt8] = []
                #expect(try pair.decrypt(into: &all, bufferSize: 100))
                #expect(all.isEmpty)
                // An incomplete record waits in OpenSSL, not in a borrowed chunk.
                #expect(pair.pool.lentCount == 0)
                #expect(try pair.receiveAll() == bytes)
                try pair.serverSend(bytes)
            }
            #expect(try pair.receiveAll() == bytes)
        }
    }

    @Test("One decryption fills the buffer from many records")
    func decryptsManyRecords() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        for number in 0..<50 { try pair.serverSend([UInt8](repeating: UInt8(number), count: 100)) }
        _ = try pair.carryToClient()
        _ = pair.stream.receiveCiphertext(from: pair.sockets.left)
        var buffer = [UInt8](repeating: 0, count: 4_950)
        guard case .bytes(4_950) = buffer.withUnsafeMutableBytes({ pair.stream.decrypt(into: $0) })
        else {
            Issue.record("the buffer must be filled")
            return
        }
        #expect(pair.stream.hasBufferedInput)
        guard case .bytes(50) = buffer.withUnsafeMutableBytes({ pair.stream.decrypt(into: $0) })
        else {
            Issue.record("the rest must come next")
            return
        }
        #expect(!pair.stream.hasBufferedInput)
        guard case .needsInput = buffer.withUnsafeMutableBytes({ pair.stream.decrypt(into: $0) })
        else {
            Issue.record("nothing is left")
            return
        }
    }

    @Test("A reader that stops keeps what came, and a full chunk stops the receive")
    func keepsUnreadInput() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        var generator = SeededGenerator(seed: 5)
        let bytes = generator.bytes(400_000)
        try pair.serverSend(bytes)
        var taken = 0
        while true {
            _ = try pair.carryToClient()
            let result = pair.stream.receiveCiphertext(from: pair.sockets.left)
            guard case .bytes(let count) = result else {
                #expect(result == .wouldBlock)
                break
            }
            taken += count
        }
        #expect(taken == ChunkPool.chunkSize)
        #expect(pair.stream.hasBufferedInput)
        #expect(pair.pool.lentCount == 1)
        var all: [UInt8] = []
        _ = try pair.decrypt(into: &all, bufferSize: 10_000)
        all += try pair.receiveAll()
        #expect(all == bytes)
        #expect(pair.pool.lentCount == 0)
    }

    @Test("Large writes go out in records of 16 KiB")
    func writesFullRecords() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        #expect(pair.clientSend([UInt8](repeating: 1, count: 160 * 1024)) == nil)
        var wire: [UInt8] = []
        while pair.stream.unsentByteCount > 0 {
            _ = pair.stream.flush(to: pair.sockets.left)
            wire += received(from: pair.sockets.right).bytes
        }
        var records = 0
        var offset = 0
        while offset + 5 <= wire.count {
            offset += 5 + Int(wire[offset + 3]) << 8 + Int(wire[offset + 4])
            records += 1
        }
        #expect(offset == wire.count)
        #expect(records == 10)
    }

    @Test("Several writes of a turn leave in one send")
    func gathersWrites() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        for number in 0..<10 { #expect(pair.clientSend([UInt8(number)]) == nil) }
        let unsent = pair.stream.unsentByteCount
        #expect(unsent > 10)
        #expect(pair.stream.flush(to: pair.sockets.left) == .sent(unsent))
        #expect(pair.stream.unsentByteCount == 0)
        #expect(pair.stream.flush(to: pair.sockets.left) == .sent(0))
        #expect(pair.pool.lentCount == 0)
    }

    @Test("What the kernel does not take stays, in order, and is released when it is gone")
    func keepsUnsentOutput() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        var generator = SeededGenerator(seed: 6)
        let bytes = generator.bytes(5_000_000)
        #expect(pair.clientSend(bytes) == nil)
        var result = pair.stream.flush(to: pair.sockets.left)
        while case .sent = result { result = pair.stream.flush(to: pair.sockets.left) }
        #expect(result == .wouldBlock)
        #expect(pair.stream.unsentByteCount > 0)
        let more = generator.bytes(100_000)
        #expect(pair.clientSend(more) == nil)
        let early = received(from: pair.sockets.right).bytes
        // The server gets what was in the socket first.
        #expect(pair.feedServer(early))
        try pair.carryToServer()
        pair.runServer()
        #expect(pair.serverReceived == bytes + more)
        #expect(pair.pool.lentCount == 0)
    }

    @Test("An idle stream holds no buffer")
    func holdsNothingWhenIdle() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        #expect(pair.pool.lentCount == 0)
        try pair.serverSend([1])
        #expect(try pair.receiveAll() == [1])
        #expect(pair.clientSend([2]) == nil)
        #expect(pair.pool.lentCount == 1)
        try pair.carryToServer()
        #expect(pair.pool.lentCount == 0)
    }

    @Test("A close_notify ends the stream properly")
    func endsWithCloseNotify() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        try pair.serverSend([1, 2, 3])
        SSL_shutdown(pair.server)
        _ = try pair.carryToClient()
        Socket.shutdownWrite(pair.sockets.right)
        var all: [UInt8] = []
        _ = pair.stream.receiveCiphertext(from: pair.sockets.left)
        #expect(try !pair.decrypt(into: &all, bufferSize: 100))
        #expect(all == [1, 2, 3])
        #expect(try !pair.decrypt(into: &all, bufferSize: 100))
    }

    @Test("An end without close_notify is a truncation, after the bytes before it")
    func reportsTruncation() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        try pair.serverSend([1, 2, 3])
        _ = try pair.carryToClient()
        Socket.shutdownWrite(pair.sockets.right)
        #expect(pair.stream.receiveCiphertext(from: pair.sockets.left) != .wouldBlock)
        #expect(pair.stream.receiveCiphertext(from: pair.sockets.left) == .end)
        var all: [UInt8] = []
        let failure = try #require(throws: TLSFailure.self) {
            try pair.decrypt(into: &all, bufferSize: 100)
        }
        #expect(all == [1, 2, 3])
        #expect(failure.reason == .truncated)
        #expect(
            failure.description == "TLS with localhost: the connection ended without close_notify")
    }

    @Test("Our close_notify reaches the server once, and receiving goes on")
    func sendsCloseNotify() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        #expect(pair.clientSend([9]) == nil)
        pair.stream.closeNotify()
        let unsent = pair.stream.unsentByteCount
        pair.stream.closeNotify()
        #expect(pair.stream.unsentByteCount == unsent)
        try pair.carryToServer()
        pair.runServer()
        #expect(pair.serverReceived == [9])
        #expect(pair.serverSawCloseNotify)
        try pair.serverSend([8])
        #expect(try pair.receiveAll() == [8])
    }

    @Test("A second close_notify touches nothing, not even what has come in meanwhile")
    func sendsCloseNotifyOnce() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        try pair.serverSend([8])
        _ = try pair.carryToClient()
        pair.stream.closeNotify()
        #expect(pair.stream.receiveCiphertext(from: pair.sockets.left) != .wouldBlock)
        pair.stream.closeNotify()
        #expect(try pair.receiveAll() == [8])
    }

    @Test("A record that was tampered with breaks the stream, after the ones before it")
    func refusesTamperedRecord() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        try pair.serverSend([1])
        try pair.serverSend([2])
        let length = pair.wireCount
        _ = try pair.carryToClient()
        var wire = received(from: pair.sockets.left).bytes
        #expect(wire.count == length)
        wire[length - 1] ^= 1
        try send(wire, to: pair.sockets.right)
        _ = pair.stream.receiveCiphertext(from: pair.sockets.left)
        var all: [UInt8] = []
        let failure = try #require(throws: TLSFailure.self) {
            try pair.decrypt(into: &all, bufferSize: 100)
        }
        #expect(all == [1])
        #expect(failure.reason == .broken)
        #expect(failure.description.contains("bad record mac"))
        #expect(pair.clientSend([1]) === failure)
        // The alert that tells the server.
        #expect(pair.stream.unsentByteCount > 0)
    }

    @Test("A key update is followed in both directions")
    func followsKeyUpdate() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        #expect(SSL_key_update(pair.server, SSL_KEY_UPDATE_REQUESTED) == 1)
        try pair.serverSend([1])
        #expect(try pair.receiveAll() == [1])
        // Our own update goes out with the next write: two records instead of one.
        #expect(pair.clientSend([2]) == nil)
        let withUpdate = pair.stream.unsentByteCount
        try pair.carryToServer()
        pair.runServer()
        #expect(pair.serverReceived == [2])
        #expect(pair.clientSend([3]) == nil)
        #expect(pair.stream.unsentByteCount < withUpdate)
        try pair.carryToServer()
        pair.runServer()
        #expect(pair.serverReceived == [2, 3])
        try pair.serverSend([4])
        #expect(try pair.receiveAll() == [4])
    }

    @Test("A server's wish to renegotiate is declined and the stream goes on")
    func declinesRenegotiation() throws {
        let server = try ServerContext(ServerSettings(maximumVersion: TLS1_2_VERSION))
        let pair = try TLSPair(trustingContext(), server)
        try pair.establish()
        #expect(SSL_renegotiate(pair.server) == 1)
        _ = SSL_do_handshake(pair.server)
        #expect(try pair.receiveAll().isEmpty)
        #expect(pair.stream.unsentByteCount > 0)
        #expect(pair.clientSend([2]) == nil)
    }

    @Test("Alerts of the server in the middle of the stream are reported")
    func reportsAlert() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        try pair.establish()
        // A client record the server cannot decrypt makes it send bad_record_mac.
        #expect(pair.clientSend([1]) == nil)
        _ = pair.stream.flush(to: pair.sockets.left)
        var wire = received(from: pair.sockets.right).bytes
        wire[wire.count - 1] ^= 1
        #expect(pair.feedServer(wire))
        pair.runServer()
        let failure = try #require(throws: TLSFailure.self) { try pair.receiveAll() }
        #expect(failure.reason == .alert(number: SSL_AD_BAD_RECORD_MAC, text: "bad record mac"))
    }
}

@Suite struct PlaintextStreamTests {
    private let pool = ChunkPool()

    @Test("A plain stream carries bytes as they are")
    func carriesBytes() throws {
        let sockets = try SocketPair()
        let stream = SecureStream(plaintext: pool)
        guard case .done = stream.handshake() else {
            Issue.record("a plain stream needs no handshake")
            return
        }
        #expect(stream.peerDescription == "plaintext")
        #expect(!stream.isEncrypted && !stream.isResumed)
        #expect([UInt8(1), 2].withUnsafeBytes { stream.encrypt($0) } == nil)
        #expect(stream.unsentByteCount == 2)
        #expect(stream.flush(to: sockets.left) == .sent(2))
        #expect(received(from: sockets.right).bytes == [1, 2])

        try send([3, 4, 5], to: sockets.right)
        #expect(stream.receiveCiphertext(from: sockets.left) == .bytes(3))
        var buffer = [UInt8](repeating: 0, count: 2)
        guard case .bytes(2) = buffer.withUnsafeMutableBytes({ stream.decrypt(into: $0) }) else {
            Issue.record("the buffer must be filled")
            return
        }
        #expect(buffer == [3, 4])
        #expect(stream.hasBufferedInput)
        guard case .bytes(1) = buffer.withUnsafeMutableBytes({ stream.decrypt(into: $0) }) else {
            Issue.record("the rest must come next")
            return
        }
        #expect(!stream.hasBufferedInput)
        #expect(pool.lentCount == 0)
    }

    @Test("The end of a plain stream is a proper one, after the bytes before it")
    func ends() throws {
        let sockets = try SocketPair()
        let stream = SecureStream(plaintext: pool)
        try send([1], to: sockets.right)
        Socket.shutdownWrite(sockets.right)
        #expect(stream.receiveCiphertext(from: sockets.left) == .bytes(1))
        #expect(stream.receiveCiphertext(from: sockets.left) == .end)
        var buffer = [UInt8](repeating: 0, count: 8)
        guard case .bytes(1) = buffer.withUnsafeMutableBytes({ stream.decrypt(into: $0) }),
            case .closed = buffer.withUnsafeMutableBytes({ stream.decrypt(into: $0) })
        else {
            Issue.record("one byte, then the end")
            return
        }
    }

    @Test(
        "Output of any size survives a socket that takes it in parts", arguments: [5_000, 300_000])
    func keepsOutput(largestPiece: Int) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let sockets = try SocketPair()
        sockets.shrinkBuffers()
        let stream = SecureStream(plaintext: pool)
        var expected: [UInt8] = []
        var arrived: [UInt8] = []
        for _ in 0..<400 {
            // Never empty, so that the head of the output wanders through its buffer.
            while stream.unsentByteCount < 4 * largestPiece {
                let piece = generator.bytes(Int.random(in: 1...largestPiece, using: &generator))
                #expect(piece.withUnsafeBytes { stream.encrypt($0) } == nil)
                expected += piece
            }
            _ = stream.flush(to: sockets.left)
            let limit = Int.random(in: 1...5_000, using: &generator)
            arrived += received(from: sockets.right, limit: limit).bytes
        }
        while stream.unsentByteCount > 0 {
            _ = stream.flush(to: sockets.left)
            arrived += received(from: sockets.right).bytes
        }
        arrived += received(from: sockets.right).bytes
        #expect(arrived == expected, "seed \(seed)")
        #expect(pool.lentCount == 0)
    }

    @Test("Input survives a reader that takes it in parts")
    func keepsInput() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let sockets = try SocketPair()
        let stream = SecureStream(plaintext: pool)
        let expected = generator.bytes(1_000_000)
        var sent = 0
        var arrived: [UInt8] = []
        while arrived.count < expected.count {
            let size = min(expected.count - sent, Int.random(in: 0...60_000, using: &generator))
            let piece = expected[sent..<sent + size]
            if size > 0,
                case .sent(let count) = piece.withUnsafeBytes({
                    Socket.send(sockets.right, $0)
                })
            {
                sent += count
            }
            _ = stream.receiveCiphertext(from: sockets.left)
            var buffer = [UInt8](
                repeating: 0, count: Int.random(in: 1...50_000, using: &generator))
            if case .bytes(let count) = buffer.withUnsafeMutableBytes({ stream.decrypt(into: $0) })
            {
                arrived += buffer[..<count]
            }
        }
        #expect(arrived == expected, "seed \(seed)")
        #expect(pool.lentCount == 0)
    }

    @Test("A stream dropped with bytes in both directions gives its chunks back")
    func releasesWhenDropped() throws {
        let sockets = try SocketPair()
        do {
            let stream = SecureStream(plaintext: pool)
            try send([1], to: sockets.right)
            _ = stream.receiveCiphertext(from: sockets.left)
            #expect([UInt8(1)].withUnsafeBytes { stream.encrypt($0) } == nil)
            #expect(pool.lentCount == 2)
        }
        #expect(pool.lentCount == 0)
    }
}
