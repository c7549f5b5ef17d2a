import COpenSSL
import Glibc
import Testing
import Transport

@Suite struct TLSHandshakeTests {
    @Test("TLS 1.2 and 1.3 are spoken, and said", arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func speaksVersions(version: Int32) throws {
        let server = try ServerContext(ServerSettings(maximumVersion: version))
        let pair = try TLSPair(trustingContext(), server)
        #expect(pair.stream.peerDescription == "TLS, handshake not done")
        try pair.establish()
        let name = version == TLS1_3_VERSION ? "TLSv1.3 " : "TLSv1.2 "
        #expect(pair.stream.peerDescription.hasPrefix(name))
        #expect(pair.stream.isEncrypted)
        #expect(!pair.stream.isResumed)
    }

    @Test(
        "AES with 128 bits is preferred, and whatever else the server takes is taken",
        arguments: [
            (nil, "TLS_AES_128_GCM_SHA256"),
            ("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
            ("TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256"),
        ])
    func prefersShortKeys(offered: String?, agreed: String) throws {
        let server = try ServerContext(ServerSettings(cipherSuites: offered))
        let pair = try TLSPair(trustingContext(), server)
        try pair.establish()
        #expect(pair.stream.peerDescription == "TLSv1.3 \(agreed)")
    }

    @Test(
        "A name or address in the certificate is accepted",
        arguments: [
            "localhost", "cache.test", "CACHE.test", "a.wild.test", "cache.test.", "127.0.0.1",
            "::1", "0:0:0:0:0:0:0:1",
        ])
    func acceptsNames(name: String) throws {
        let pair = try TLSPair(trustingContext(), ServerContext(), serverName: name)
        try pair.establish()
    }

    @Test(
        "A name or address that is not in the certificate is refused",
        arguments: [
            "other.test", "wild.test", "a.b.wild.test", "127.0.0.2", "::2", "cache.test.evil",
            "server",
        ])
    func refusesNames(name: String) throws {
        let pair = try TLSPair(trustingContext(), ServerContext(), serverName: name)
        let failure = try pair.failure()
        guard case .certificate(let problem) = failure.reason else {
            Issue.record("refused for another reason: \(failure)")
            return
        }
        #expect(problem.isWrongName)
        #expect(problem.depth == 0)
        #expect(
            problem.names == [
                "localhost", "cache.test", "*.wild.test", "127.0.0.1", "::1",
            ])
        #expect(
            failure.description
                == "TLS with \(name): certificate refused: \(problem.reason); wanted \(name), the "
                + "certificate is for localhost, cache.test, *.wild.test, 127.0.0.1, ::1 (subject "
                + "O=Transport Tests, CN=server); connect by one of its names or set the server "
                + "name to one")
    }

    @Test("A host name is sent to the server, without its trailing dot")
    func sendsServerName() throws {
        let pair = try TLSPair(trustingContext(), ServerContext(), serverName: "cache.test.")
        try pair.establish()
        #expect(pair.serverNameIndication == "cache.test")
    }

    @Test("An address is not sent as a name", arguments: ["127.0.0.1", "::1"])
    func sendsNoAddress(address: String) throws {
        let pair = try TLSPair(trustingContext(), ServerContext(), serverName: address)
        try pair.establish()
        #expect(pair.serverNameIndication == nil)
    }

    @Test("A certificate of an unknown authority is refused, with its issuer and the remedy")
    func refusesUnknownAuthority() throws {
        let server = try ServerContext(ServerSettings(certificate: "foreign"))
        let pair = try TLSPair(trustingContext(), server)
        let failure = try pair.failure()
        guard case .certificate(let problem) = failure.reason else {
            Issue.record("refused for another reason: \(failure)")
            return
        }
        #expect(problem.issuer == "O=Transport Tests, CN=stranger")
        let caFile = try TestCertificates.shared.get().caFile
        #expect(
            failure.description.hasSuffix(
                "its authority is not in \(caFile): give the file that holds it"))
        #expect(failure.errorQueue.count == 1)
        // The server learns why from our alert.
        #expect(ERR_GET_REASON(pair.serverError) == SSL_R_TLSV1_ALERT_UNKNOWN_CA)
    }

    @Test("A self-signed certificate is refused")
    func refusesSelfSigned() throws {
        let server = try ServerContext(ServerSettings(certificate: "stranger"))
        let failure = try TLSPair(trustingContext(), server, serverName: "stranger").failure()
        guard case .certificate(let problem) = failure.reason else {
            Issue.record("refused for another reason: \(failure)")
            return
        }
        #expect(problem.code == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT)
    }

    @Test("The system's store does not know the tests' authority")
    func trustsSystemStore() throws {
        let failure = try TLSPair(TLSContext(), ServerContext()).failure()
        #expect(failure.description.contains("is not in the system's certificate store"))
    }

    @Test("An expired certificate is refused, with its end")
    func refusesExpired() throws {
        let server = try ServerContext(ServerSettings(certificate: "expired"))
        let failure = try TLSPair(trustingContext(), server).failure()
        guard case .certificate(let problem) = failure.reason else {
            Issue.record("refused for another reason: \(failure)")
            return
        }
        #expect(problem.code == X509_V_ERR_CERT_HAS_EXPIRED)
        #expect(failure.description.contains("valid until \(problem.notAfter); renew it"))
        #expect(problem.notAfter.hasSuffix(" GMT"))
    }

    @Test("A server below the minimum version is refused")
    func refusesOldVersion() throws {
        let server = try ServerContext(ServerSettings(maximumVersion: TLS1_2_VERSION))
        let failure = try TLSPair(trustingContext(minimumVersion: .tls13), server).failure()
        #expect(failure.reason == .protocolVersion)
        #expect(
            failure.description.hasPrefix(
                "TLS with localhost: no protocol version in common; wanted TLS 1.3 or later"))
    }

    @Test(
        "A client certificate is shown to a server that wants one",
        arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func showsClientCertificate(version: Int32) throws {
        let server = try ServerContext(
            ServerSettings(maximumVersion: version, wantsClientCertificate: true))
        let pair = try TLSPair(trustingContext(client: "client"), server)
        try pair.establish()
        #expect(pair.clientCertificateName == "client")
    }

    @Test("Without a client certificate the server's alert is reported with what it means")
    func reportsMissingClientCertificate() throws {
        let server = try ServerContext(ServerSettings(wantsClientCertificate: true))
        let failure = try TLSPair(trustingContext(), server).failure()
        #expect(
            failure.reason
                == .alert(number: SSL_AD_CERTIFICATE_REQUIRED, text: "certificate required"))
        #expect(failure.description.contains("it wants a client certificate"))
    }

    @Test("A server that does not speak TLS is recognised")
    func recognisesPlaintext() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        guard case .needsInput = pair.stream.handshake() else {
            Issue.record("a handshake must need input")
            return
        }
        try send(Array("-ERR unknown command\r\n".utf8), to: pair.sockets.right)
        #expect(pair.stream.receiveCiphertext(from: pair.sockets.left) == .bytes(22))
        guard case .failed(let failure) = pair.stream.handshake() else {
            Issue.record("plaintext must fail the handshake")
            return
        }
        #expect(failure.reason == .notTLS)
    }

    @Test("A server that closes during the handshake is reported as that")
    func reportsClose() throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        _ = pair.stream.handshake()
        Socket.shutdownWrite(pair.sockets.right)
        #expect(pair.stream.receiveCiphertext(from: pair.sockets.left) == .end)
        guard case .failed(let failure) = pair.stream.handshake() else {
            Issue.record("the end must fail the handshake")
            return
        }
        #expect(failure.reason == .closedDuringHandshake)
        // It stays failed.
        guard case .failed(let again) = pair.stream.handshake() else {
            Issue.record("a failed handshake must stay failed")
            return
        }
        #expect(again === failure)
    }

    /// Where the bytes of handshake and encrypted records are. Not their headers, whose version is
    /// ignored, nor the change_cipher_spec that TLS 1.3 sends for show (RFC 8446, 5.1 and D.4).
    private func contentOffsets(_ wire: [UInt8]) -> [Int] {
        var offsets: [Int] = []
        var start = 0
        while start + 5 <= wire.count {
            let end = start + 5 + Int(wire[start + 3]) << 8 + Int(wire[start + 4])
            if wire[start] != 20 { offsets += start + 5..<min(end, wire.count) }
            start = end
        }
        return offsets
    }

    @Test("Random bytes instead of a server fail and never trap")
    func survivesGarbage() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            let pair = try TLSPair(trustingContext(), ServerContext())
            _ = pair.stream.handshake()
            try pair.carryToServer()
            pair.runServer()
            // Half of the runs get the server's genuine flight, with one byte changed that counts.
            var bytes = generator.bytes(Int.random(in: 1...600, using: &generator))
            if Bool.random(using: &generator) {
                _ = try pair.carryToClient()
                bytes = received(from: pair.sockets.left).bytes
                if let index = contentOffsets(bytes).randomElement(using: &generator) {
                    bytes[index] ^= 0x55
                }
            }
            try send(bytes, to: pair.sockets.right)
            Socket.shutdownWrite(pair.sockets.right)
            var progress = HandshakeProgress.needsInput
            while case .needsInput = progress {
                _ = pair.stream.receiveCiphertext(from: pair.sockets.left)
                progress = pair.stream.handshake()
            }
            guard case .failed = progress else {
                Issue.record("a handshake with garbage succeeded, seed \(seed)")
                return
            }
        }
    }

    @Test("A handshake succeeds in pieces of any size", arguments: [1, 2, 5, 100, 1_000])
    func handshakesInPieces(size: Int) throws {
        let pair = try TLSPair(trustingContext(), ServerContext())
        var progress = pair.stream.handshake()
        while case .needsInput = progress {
            try pair.carryToServer()
            pair.runServer()
            #expect(try pair.carryToClient(limit: size) > 0)
            _ = pair.stream.receiveCiphertext(from: pair.sockets.left)
            progress = pair.stream.handshake()
        }
        guard case .done = progress else {
            Issue.record("the handshake gave \(progress)")
            return
        }
    }

    @Test("What cannot be a server name is refused", arguments: ["", "a\0b"])
    func refusesServerName(name: String) throws {
        #expect(throws: TLSContextError.self) {
            try SecureStream(context: trustingContext(), serverName: name, pool: ChunkPool())
        }
    }
}

@Suite struct TLSResumptionTests {
    private func pair(_ client: TLSContext, _ server: ServerContext) throws -> TLSPair {
        let pair = try TLSPair(client, server)
        try pair.establish()
        return pair
    }

    @Test("The next connection resumes the session", arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func resumes(version: Int32) throws {
        let server = try ServerContext(ServerSettings(maximumVersion: version))
        let client = try trustingContext()
        #expect(try !pair(client, server).stream.isResumed)
        for _ in 0..<3 {
            let next = try pair(client, server)
            #expect(next.stream.isResumed)
            #expect(next.stream.peerDescription.hasSuffix(", resumed"))
        }
    }

    @Test("A session survives a connection that was cut off")
    func resumesAfterCut() throws {
        let server = try ServerContext()
        let client = try trustingContext()
        do {
            let first = try pair(client, server)
            first.sockets.closeRight()
            #expect(throws: TLSFailure.self) { try first.receiveAll() }
        }
        #expect(try pair(client, server).stream.isResumed)
    }

    @Test("A TLS 1.3 ticket is used once")
    func usesTicketOnce() throws {
        let server = try ServerContext()
        let client = try trustingContext()
        // Two tickets from one handshake (OpenSSL's default): two connections before their own
        // tickets arrive can resume, the third cannot.
        _ = try pair(client, server)
        var resumed: [Bool] = []
        var pairs: [TLSPair] = []
        for _ in 0..<3 {
            let next = try TLSPair(client, server)
            guard case .done = try next.handshake() else {
                Issue.record("the handshake failed")
                return
            }
            resumed.append(next.stream.isResumed)
            pairs.append(next)
        }
        #expect(resumed == [true, true, false])
    }

    @Test("Another server name does not get the session")
    func separatesNames() throws {
        let server = try ServerContext()
        let client = try trustingContext()
        _ = try pair(client, server)
        let other = try TLSPair(client, server, serverName: "cache.test")
        try other.establish()
        #expect(!other.stream.isResumed)
    }

    @Test("A server that has forgotten the session gets a full handshake")
    func fallsBack() throws {
        let client = try trustingContext()
        _ = try pair(client, ServerContext())
        let next = try pair(client, ServerContext())
        #expect(!next.stream.isResumed)
    }

    @Test("A server without tickets is connected to just as well")
    func livesWithoutTickets() throws {
        let server = try ServerContext(ServerSettings(resumes: false))
        let client = try trustingContext()
        for _ in 0..<2 { #expect(try !pair(client, server).stream.isResumed) }
    }
}

@Suite struct TLSContextTests {
    private func error(_ settings: TLSSettings) throws -> TLSContextError {
        try #require(throws: TLSContextError.self) { try TLSContext(settings) }
    }

    @Test("A missing file of authorities is named, with the reason")
    func namesMissingAuthorities() throws {
        let error = try error(TLSSettings(caFile: "/nowhere/ca.pem"))
        #expect(error.what == "the certificate authorities cannot be loaded from /nowhere/ca.pem")
        #expect(error.description.contains("No such file or directory"))
    }

    @Test("A file without a certificate is no file of authorities")
    func refusesGarbage() throws {
        let file = try TestCertificates.shared.get().certificate("garbage")
        let error = try error(TLSSettings(caFile: file))
        #expect(error.what.hasSuffix(file))
        #expect(!error.errorQueue.isEmpty)
    }

    @Test("A certificate without a key, and a key without one, are refused")
    func refusesHalves() throws {
        #expect(
            try error(TLSSettings(certificateFile: "/a.crt")).what
                == "the client certificate /a.crt has no key file")
        #expect(
            try error(TLSSettings(keyFile: "/a.key")).what
                == "the client key /a.key has no certificate file")
    }

    @Test("A key that belongs to another certificate is refused")
    func refusesForeignKey() throws {
        let certificates = try TestCertificates.shared.get()
        let error = try error(
            TLSSettings(
                certificateFile: certificates.certificate("client"),
                keyFile: certificates.key("server")))
        #expect(error.what.contains(certificates.key("server")))
        #expect(error.description.contains("key values mismatch"))
    }

    @Test("An encrypted key is refused and nobody is asked for a pass phrase")
    func refusesEncryptedKey() throws {
        let certificates = try TestCertificates.shared.get()
        let error = try error(
            TLSSettings(
                certificateFile: certificates.certificate("client"),
                keyFile: certificates.key("encrypted")))
        #expect(error.what.contains("without a pass phrase"))
    }

    @Test("A failed load leaves no error for the next call of the thread")
    func leavesNoErrors() throws {
        _ = try error(TLSSettings(caFile: "/nowhere/ca.pem"))
        #expect(ERR_peek_error() == 0)
    }
}
