// A request's way through the router and its reply's way back, without sockets and TLS.

import Benchmark
import Glibc
import Identity
import Proxy

/// Some clients that share one upstream connection, each with as many commands in flight as wanted.
private final class Traffic {
    private let router: Router
    private let sessions: [SessionRef]
    private let requests: [UInt8]
    private let replies: [UInt8]

    init(clients: Int, depth: Int, request: String, reply: String) {
        router = Router(
            limits: Limits(),
            routes: [Route(user: UserIndex(0), isDedicated: false)],
            userCount: 1,
            clientName: "",
            seed: 1
        )
        requests = Array(repeatElement(Array(request.utf8), count: depth).joined())
        replies = Array(repeatElement(Array(reply.utf8), count: clients * depth).joined())
        let router = router
        sessions = (0..<clients).map { _ in router.openSession(route: 0) }
        let credential = Credential(userName: "app", secret: Secret("x".utf8))
        router.publish(
            CredentialSnapshot(version: 1, credential: credential, failure: nil), for: UserIndex(0))
        router.warm(route: 0)
        while router.nextAction() != nil {}
        let upstream = router.shared[0]
        router.didConnect(upstream)
        router.didHandOver(upstream)
        let hello = Array("*2\r\n$2\r\nid\r\n:1\r\n".utf8)
        router.replyBuffer.copyBytes(from: hello)
        router.didReceive(hello.count, from: upstream)
    }

    /// Every client's commands go to the upstream connection.
    func request() {
        for session in sessions {
            requests.withUnsafeBytes { router.receiveBuffer(for: session).copyMemory(from: $0) }
            router.didReceive(requests.count, from: session)
        }
        while router.nextAction() != nil {}
        while let upstream = router.nextDirtyUpstream() {
            blackHole(router.outgoing(of: upstream).count)
            router.didHandOver(upstream)
        }
    }

    /// All replies come at once, and every client gets its own.
    func reply() {
        replies.withUnsafeBytes { router.replyBuffer.copyMemory(from: $0) }
        router.didReceive(replies.count, from: router.shared[0])
        while let session = router.nextDirtySession() {
            router.didSend(router.output(of: session).count, to: session)
        }
        while router.nextAction() != nil {}
        router.reap()
    }
}

private func measureRouting(_ name: String, clients: Int, depth: Int) {
    let request = command("GET", "key:000000000001")
    let reply = "$64\r\n\(text(64))\r\n"
    let traffic = Traffic(clients: clients, depth: depth, request: request, reply: reply)
    let perRound = clients * depth
    measure("router: \(name), request and reply") { times in
        for _ in 0..<times / perRound {
            traffic.request()
            traffic.reply()
        }
    }
}

/// Which session each of many replies belongs to, and nothing else.
private func measureMatching(_ name: String, clients: Int, depth: Int) {
    let reply = ":1\r\n"
    let traffic = Traffic(
        clients: clients, depth: depth, request: command("INCR", "a"), reply: reply)
    let perRound = clients * depth
    let configuration = Benchmark.Configuration(
        metrics: [.wallClock], timeUnits: .nanoseconds, warmupIterations: 3,
        scalingFactor: .kilo, maxDuration: .milliseconds(600)
    )
    // The requests that the replies answer must be sent, but not within the time.
    Benchmark("matching: replies of \(name)", configuration: configuration) { benchmark in
        precondition(perRound == benchmark.scaledIterations.count)
        traffic.request()
        benchmark.startMeasurement()
        traffic.reply()
        benchmark.stopMeasurement()
    }
}

func routingBenchmarks() {
    // As many commands in a round as divide an iteration's thousand.
    measureRouting("50 clients, P=1", clients: 50, depth: 1)
    measureRouting("50 clients, P=20", clients: 50, depth: 20)
    measureRouting("1,000 clients, P=1", clients: 1000, depth: 1)
    measureRouting("one client, P=100", clients: 1, depth: 100)
    measureMatching("1,000 clients", clients: 1000, depth: 1)
    measureMatching("10 clients, P=100", clients: 10, depth: 100)
}
