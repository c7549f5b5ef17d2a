// Keeping a credential fresh: what is fetched when, and what is used meanwhile.

import AWS
import Identity
import Synchronization
import Testing

/// A source whose answers a test decides, and a refresher on it.
private final class Source: Sendable {
    typealias Answer = @Sendable (_ number: Int) throws(AWSFailure) -> AWSCredential

    private let count = Mutex(0)
    private let changed = Mutex<[CredentialRefresher.State]>([])
    private let clock = AWSClock()
    private let built = Mutex<CredentialRefresher?>(nil)

    init(_ answer: @escaping Answer) throws {
        let refresher = CredentialRefresher(
            clock: clock, cancellation: Cancellation(),
            onChange: { [weak self] state in self?.changed.withLock { $0.append(state) } },
            fetch: { [weak self] () throws(AWSFailure) in
                let number =
                    self?.count.withLock { count in
                        count += 1
                        return count
                    } ?? 0
                return try answer(number)
            })
        built.withLock { $0 = refresher }
        try refresher.start()
    }

    var refresher: CredentialRefresher { built.withLock { $0! } }
    var state: CredentialRefresher.State { refresher.state }
    /// What was known after each fetch.
    var states: [CredentialRefresher.State] { changed.withLock { $0 } }
    var fetches: Int { count.withLock { $0 } }

    /// Waits for it; an issue if it does not come.
    func wait(
        _ what: String, sourceLocation: SourceLocation = #_sourceLocation,
        until condition: () -> Bool
    ) async {
        let end = ContinuousClock.now + .seconds(20)
        while ContinuousClock.now < end {
            if condition() { return }
            // Looks again; what is waited for is the change, not the time.
            try? await Task.sleep(for: .milliseconds(2))
        }
        Issue.record("no \(what)", sourceLocation: sourceLocation)
    }
}

private func credential(_ number: Int, for life: Duration?, isStable: Bool = false) -> AWSCredential
{
    AWSCredential(
        accessKeyID: "AKID\(number)", secretAccessKey: Secret("s"),
        expiry: life.map { .now() + $0 },
        source: "test", isStaticallyStable: isStable)
}

@Suite(.timeLimit(.minutes(1))) struct CredentialRefresherTests {
    @Test func `a short life is followed by the next before it ends`() async throws {
        let source = try Source { number in credential(number, for: .seconds(2)) }
        defer { source.refresher.stop() }
        await source.wait("first") { source.state.credential != nil }
        var gaps = 0
        await source.wait("third") {
            if source.state.credential == nil { gaps += 1 }
            return source.state.credential?.accessKeyID == "AKID3"
        }
        #expect(gaps == 0)
    }

    @Test func `one that does not expire is not fetched again`() async throws {
        let source = try Source { number in credential(number, for: nil) }
        defer { source.refresher.stop() }
        await source.wait("first") { source.state.credential != nil }
        #expect(source.fetches == 1)
    }

    @Test func `a request brings another one, and requests in a row are one`() async throws {
        let source = try Source { number in credential(number, for: nil) }
        defer { source.refresher.stop() }
        await source.wait("first") { source.state.credential != nil }
        for _ in 0..<1000 { source.refresher.requestRefresh() }
        await source.wait("second") { source.state.credential?.accessKeyID == "AKID2" }
        #expect(source.fetches == 2)
    }

    @Test func `a failure leaves the one that is there, until it ends`() async throws {
        let source = try Source { (number) throws(AWSFailure) in
            guard number == 1 else { throw AWSFailure(.unavailable, "no more") }
            // Long enough for a fetch before its end on a machine that is busy.
            return credential(number, for: .seconds(6))
        }
        defer { source.refresher.stop() }
        await source.wait("failure") { source.states.contains { $0.failure != nil } }
        let failed = try #require(source.states.first { $0.failure != nil })
        #expect(failed.failure?.reason == "no more")
        #expect(failed.credential?.accessKeyID == "AKID1")
        await source.wait("end") { source.state.credential == nil }
        #expect(source.fetches > 2)
    }

    @Test func `what failed is tried again`() async throws {
        let source = try Source { (number) throws(AWSFailure) in
            guard number > 2 else { throw AWSFailure(.refused, "not yet") }
            return credential(number, for: nil)
        }
        defer { source.refresher.stop() }
        await source.wait("third") { source.state.credential?.accessKeyID == "AKID3" }
        #expect(source.state.failure == nil)
    }

    @Test func `instance metadata's stays in use when it has expired`() async throws {
        let source = try Source { number in
            credential(number, for: .seconds(-10), isStable: true)
        }
        defer { source.refresher.stop() }
        await source.wait("first") { source.state.credential != nil }
        let left = try #require(source.state.credential?.expiry).since(.now())
        #expect(left > .seconds(590) && left < .seconds(901))
    }

    @Test func `instance metadata's stays in use when no other comes`() async throws {
        let source = try Source { (number) throws(AWSFailure) in
            guard number == 1 else { throw AWSFailure(.unavailable, "no more") }
            return credential(number, for: .milliseconds(1500), isStable: true)
        }
        defer { source.refresher.stop() }
        await source.wait("extension") {
            source.state.credential?.expiry.map { $0.since(.now()) > .seconds(500) } ?? false
        }
        #expect(source.state.credential?.accessKeyID == "AKID1")
    }

    @Test func `any other's that has expired is none`() async throws {
        let source = try Source { number in credential(number, for: .seconds(-10)) }
        defer { source.refresher.stop() }
        await source.wait("fetch") { source.fetches > 1 }
        #expect(source.state.credential == nil)
        #expect(source.state.failure != nil)
    }
}
