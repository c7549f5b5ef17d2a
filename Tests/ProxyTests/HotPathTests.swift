// The way of a plain command through the router costs no allocation and no reference count.
//
// Allocations are counted where all of them pass, in malloc and its kin. Reference counts are
// counted with the Swift runtime's own hooks for instruments: every retain and release goes through
// pointers that can be replaced while a flag is set. That is done in a process of its own, so that
// no other test is touched.

import CAllocationCount
import Glibc
import Identity
import Proxy
import Testing

/// Counts of what one thread makes the Swift runtime do.
private struct RuntimeCounts {
    var retains = 0
    var releases = 0
}

private typealias Retain = @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer?
private typealias Release = @convention(c) (UnsafeMutableRawPointer?) -> Void

/// What the hooks need; in plain memory, so that looking at it calls no runtime function.
private struct Hooks {
    var counts = RuntimeCounts()
    var thread = pthread_self()
    var retain: Retain
    var release: Release
}

private nonisolated(unsafe) var hooks: UnsafeMutablePointer<Hooks>?

/// Counts while `body` runs; nil if this runtime has no hooks, as when it is linked statically.
private func countRuntimeCalls(_ body: () -> Void) -> RuntimeCounts? {
    let handle = dlopen(nil, RTLD_NOW)
    guard let retain = dlsym(handle, "_swift_retain"),
        let release = dlsym(handle, "_swift_release"),
        let flag = dlsym(
            handle,
            "_swift_enableSwizzlingOfAllocationAndRefCountingFunctions_forInstrumentsOnly"
        )
    else { return nil }
    let retainSlot = retain.assumingMemoryBound(to: Retain.self)
    let releaseSlot = release.assumingMemoryBound(to: Release.self)
    let isOn = flag.assumingMemoryBound(to: Bool.self)

    let memory = UnsafeMutablePointer<Hooks>.allocate(capacity: 1)
    memory.initialize(
        to: Hooks(retain: retainSlot.pointee, release: releaseSlot.pointee)
    )
    hooks = memory
    let original = memory.pointee
    retainSlot.pointee = { object in
        guard let hooks else { return object }
        if pthread_self() == hooks.pointee.thread { hooks.pointee.counts.retains += 1 }
        return hooks.pointee.retain(object)
    }
    releaseSlot.pointee = { object in
        guard let hooks else { return }
        if pthread_self() == hooks.pointee.thread { hooks.pointee.counts.releases += 1 }
        hooks.pointee.release(object)
    }
    isOn.pointee = true
    body()
    isOn.pointee = false
    let counts = memory.pointee.counts
    retainSlot.pointee = original.retain
    releaseSlot.pointee = original.release
    // `memory` stays: another thread may be inside a hook still.
    return counts
}

/// As many clients as wanted, each with as many GETs in flight, round after round.
private final class SteadyLoad {
    let router: Router
    let sessions: [SessionRef]
    let depth: Int
    private let requests: [UInt8]
    private let replies: [UInt8]
    private(set) var delivered = 0

    init(clients: Int, depth: Int) {
        router = Router(
            limits: Limits(),
            routes: [Route(user: UserIndex(0), isDedicated: false)],
            userCount: 1,
            clientName: "",
            seed: 1
        )
        self.depth = depth
        let get = Array("*2\r\n$3\r\nGET\r\n$8\r\nkey:1234\r\n".utf8)
        requests = Array(repeatElement(get, count: depth).joined())
        let reply = Array("$10\r\n0123456789\r\n".utf8)
        replies = Array(repeatElement(reply, count: clients * depth).joined())
        let router = router
        sessions = (0..<clients).map { _ in router.openSession(route: 0) }
        router.publish(
            CredentialSnapshot(
                version: 1,
                credential: Credential(userName: "app", secret: Secret("x".utf8)),
                failure: nil
            ),
            for: UserIndex(0)
        )
        router.warm(route: 0)
        while router.nextAction() != nil {}
        let upstream = router.shared[0]
        router.didConnect(upstream)
        router.didHandOver(upstream)
        let hello = Array("*2\r\n$2\r\nid\r\n:1\r\n".utf8)
        router.replyBuffer.copyBytes(from: hello)
        router.didReceive(hello.count, from: upstream)
    }

    func round() {
        for session in sessions {
            requests.withUnsafeBytes { router.receiveBuffer(for: session).copyMemory(from: $0) }
            router.didReceive(requests.count, from: session)
        }
        while router.nextAction() != nil {}
        while let upstream = router.nextDirtyUpstream() {
            _ = router.outgoing(of: upstream)
            router.didHandOver(upstream)
        }
        replies.withUnsafeBytes { router.replyBuffer.copyMemory(from: $0) }
        router.didReceive(replies.count, from: router.shared[0])
        while let session = router.nextDirtySession() {
            let count = router.output(of: session).count
            delivered += count
            router.didSend(count, to: session)
        }
        while router.nextAction() != nil {}
        router.reap()
    }
}

@Suite("Cost of the hot path", .serialized)
struct HotPathTests {
    /// What is promised, is promised of optimised builds.
    static var isOptimised: Bool {
        var isDebug = false
        assert({ isDebug = true }() == ())
        return !isDebug
    }

    /// Clients, and commands in flight of each.
    static let loads = [(1, 1), (1, 64), (50, 1), (50, 16), (1_000, 1)]

    @Test(
        "A plain command costs no allocation",
        .enabled(if: isOptimised && allocation_count() >= 0),
        arguments: loads
    )
    func noAllocation(clients: Int, depth: Int) {
        let load = SteadyLoad(clients: clients, depth: depth)
        for _ in 0..<20 { load.round() }
        // Somebody who watches holds a copy of what was counted.
        let held = load.router.currentFigures
        let (delivered, allocations) = (load.delivered, allocation_count())
        for _ in 0..<100 { load.round() }
        #expect(allocation_count() - allocations == 0)
        #expect(held.latency.totalCount == 20 * clients * depth)
        #expect(load.delivered - delivered == 100 * clients * depth * 17, "the load did not run")
        let counted = load.router.currentFigures.latency.totalCount
        #expect(counted == 120 * clients * depth, "every reply is counted all the same")
    }

    @Test("A plain command costs no reference count", .enabled(if: isOptimised))
    func noReferenceCount() async {
        await #expect(processExitsWith: .success) {
            for (clients, depth) in HotPathTests.loads {
                let load = SteadyLoad(clients: clients, depth: depth)
                for _ in 0..<20 { load.round() }
                let before = load.delivered
                let counts = try #require(
                    countRuntimeCalls { for _ in 0..<100 { load.round() } },
                    "this Swift runtime cannot be instrumented"
                )
                let commands = 100 * clients * depth
                #expect(load.delivered - before == commands * 17, "the load did not run")
                #expect(
                    counts.retains == 0 && counts.releases == 0, "\(counts), \(commands) commands")
            }
        }
    }

    @Test("The counter counts", .enabled(if: isOptimised))
    func counterCounts() async {
        await #expect(processExitsWith: .success) {
            let object = SteadyObject()
            var kept: [AnyObject] = []
            kept.reserveCapacity(20)
            let counts = try #require(
                countRuntimeCalls {
                    for _ in 0..<5 { kept.append(object) }
                    kept.removeLast(5)
                }
            )
            #expect(kept.isEmpty && counts.retains >= 5 && counts.releases >= 5, "\(counts)")
        }
    }
}

private final class SteadyObject {}
