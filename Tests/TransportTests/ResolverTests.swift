import Glibc
import Synchronization
import Testing
import Transport

@Suite struct ResolverTests {
    /// Gathers results from other threads; `wait` blocks until there are enough.
    private final class Results: Sendable {
        private let results = Mutex<[ResolveResult]>([])
        private let bell = Semaphore()

        func add(_ result: ResolveResult) {
            results.withLock { $0.append(result) }
            bell.signal()
        }

        func wait(for count: Int) throws -> [ResolveResult] {
            for _ in 0..<count { try bell.wait() }
            return results.withLock { $0 }
        }

        var count: Int { results.withLock { $0.count } }
    }

    @Test("An IP address is answered at once, without a lookup")
    func answersLiterals() throws {
        let resolver = Resolver()
        let results = Results()
        resolver.resolve(host: "::1", port: 6379) { results.add($0) }
        #expect(results.count == 1)
        let address = try #require(SocketAddress(literal: "::1", port: 6379))
        #expect(try results.wait(for: 1) == [.success([address])])
    }

    @Test("A name is answered on another thread with its addresses and the port")
    func resolvesName() throws {
        let resolver = Resolver()
        let results = Results()
        let caller = pthread_self()
        resolver.resolve(host: "localhost", port: 6379) { result in
            #expect(pthread_equal(caller, pthread_self()) == 0)
            results.add(result)
        }
        let addresses = try #require(try results.wait(for: 1).first).get()
        #expect(!addresses.isEmpty)
        #expect(addresses.allSatisfy { $0.isLoopback && $0.port == 6379 })
    }

    @Test("A name that does not exist is answered with the reason")
    func reportsUnknownName() throws {
        let resolver = Resolver()
        let results = Results()
        resolver.resolve(host: "name.invalid", port: 1) { results.add($0) }
        guard case .failure(let error) = try results.wait(for: 1)[0] else {
            Issue.record("name.invalid must not resolve (RFC 2606)")
            return
        }
        #expect(error.host == "name.invalid")
        #expect(error.description == "cannot resolve \"name.invalid\": \(error.reason)")
        #expect(!error.reason.isEmpty)
    }

    @Test("Every request of many threads is answered once")
    func answersEveryRequest() throws {
        let resolver = Resolver()
        let results = Results()
        let threads = try (0..<4).map { number in
            try Thread.start(name: "asker") {
                for round in 0..<25 {
                    let port = UInt16(1 + (number + round) % 3)
                    resolver.resolve(host: "localhost", port: port) { result in
                        let addresses = (try? result.get()) ?? []
                        #expect(addresses.allSatisfy { $0.port == port })
                        results.add(result)
                    }
                }
            }
        }
        for thread in threads { thread.join() }
        let all = try results.wait(for: 100)
        #expect(all.count == 100)
        #expect(all.allSatisfy { (try? $0.get().isEmpty) == false })
    }

    @Test("A closed resolver refuses names")
    func refusesAfterClose() throws {
        let resolver = Resolver()
        resolver.close()
        resolver.close()
        let results = Results()
        resolver.resolve(host: "localhost", port: 1) { results.add($0) }
        #expect(results.count == 1)
        guard case .failure(let error) = try results.wait(for: 1)[0] else {
            Issue.record("a closed resolver must refuse")
            return
        }
        #expect(error.description == "cannot resolve \"localhost\": the resolver is closed")
    }
}

/// A POSIX semaphore; `wait` gives up after ten seconds.
final class Semaphore: Sendable {
    private nonisolated(unsafe) let semaphore: UnsafeMutablePointer<sem_t>

    init() {
        semaphore = UnsafeMutablePointer.allocate(capacity: 1)
        sem_init(semaphore, 0, 0)
    }

    func signal() { sem_post(semaphore) }

    func wait() throws {
        var deadline = timespec()
        clock_gettime(CLOCK_REALTIME, &deadline)
        deadline.tv_sec += 10
        while sem_timedwait(semaphore, &deadline) != 0 {
            if errno != EINTR { throw TestError("nobody signalled") }
        }
    }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }
}
