import Glibc
import Synchronization
import Testing
import Transport

/// What the callbacks of a test write down; behind a pointer, as an owner is in earnest.
private struct Probe {
    var watcher = IOWatcher()
    var other = IOWatcher()
    var timer = TimerWatcher()
    var readiness: [Readiness] = []
    var times: [UInt64] = []
    var events: [String] = []
    var turns = 0
    var turnsWanted = 0
    var descriptor: Int32 = -1
    var loop: EventLoop
}

/// A loop and a probe at a fixed address, taken down in order.
private final class Fixture {
    let loop: EventLoop
    let probe: UnsafeMutablePointer<Probe>
    var owner: UnsafeMutableRawPointer { UnsafeMutableRawPointer(probe) }

    init() throws {
        loop = try EventLoop()
        probe = UnsafeMutablePointer.allocate(capacity: 1)
        probe.initialize(to: Probe(loop: loop))
    }

    deinit {
        probe.pointee.watcher.stop()
        probe.pointee.other.stop()
        probe.pointee.timer.stop()
        probe.deinitialize(count: 1)
        probe.deallocate()
    }
}

private func probe(_ owner: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Probe> {
    owner.assumingMemoryBound(to: Probe.self)
}

/// Writes the readiness down and stops the loop.
private let recordAndStop: ReadyCallback = { owner, readiness in
    probe(owner).pointee.readiness.append(Readiness(rawValue: readiness))
    probe(owner).pointee.loop.stop()
}

/// Counts turns and stops the loop after the wanted number.
private func stop(_ fixture: Fixture, afterTurns turns: Int) {
    fixture.probe.pointee.turns = 0
    fixture.probe.pointee.turnsWanted = turns
    fixture.loop.onTurnEnd(
        { owner in
            probe(owner).pointee.turns += 1
            if probe(owner).pointee.turns == probe(owner).pointee.turnsWanted {
                probe(owner).pointee.loop.stop()
            } else {
                probe(owner).pointee.loop.runAnotherTurn()
            }
        },
        owner: fixture.owner
    )
}

@Suite struct HeldTurnTests {
    @Test("Turns that are held apart begin no sooner than that after one another")
    func holdsTurnsApart() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        try send([1], to: pair.right)
        // Always readable, so that nothing but the hold keeps the loop from the next turn.
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop, descriptor: pair.left,
            callback: { owner, _ in
                probe(owner).pointee.times.append(probe(owner).pointee.loop.now)
                if probe(owner).pointee.times.count == 4 { probe(owner).pointee.loop.stop() }
            },
            owner: fixture.owner)
        fixture.probe.pointee.watcher.start(.read)
        fixture.loop.holdTurnsApart(by: 20_000_000)
        run(fixture.loop)
        let times = fixture.probe.pointee.times
        for (earlier, later) in zip(times, times.dropFirst()) {
            // libev reads its own clock, a moment before or after ours.
            #expect(later - earlier > 10_000_000)
        }
    }
}

@Suite struct IOWatcherTests {
    @Test("A readable descriptor calls the owner with read")
    func reads() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop, descriptor: pair.left, callback: recordAndStop,
            owner: fixture.owner)
        #expect(!fixture.probe.pointee.watcher.isActive)
        fixture.probe.pointee.watcher.start(.read)
        #expect(fixture.probe.pointee.watcher.interests == .read)
        try send([1], to: pair.right)
        run(fixture.loop)
        #expect(fixture.probe.pointee.readiness == [.read])
    }

    @Test("Both interests are reported together")
    func readsAndWrites() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop, descriptor: pair.left, callback: recordAndStop,
            owner: fixture.owner)
        fixture.probe.pointee.watcher.start([.read, .write])
        try send([1], to: pair.right)
        run(fixture.loop)
        #expect(fixture.probe.pointee.readiness == [[.read, .write]])
    }

    @Test("Only what is asked for is reported")
    func reportsInterestsOnly() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop, descriptor: pair.left, callback: recordAndStop,
            owner: fixture.owner)
        try send([1], to: pair.right)
        fixture.probe.pointee.watcher.start(.write)
        run(fixture.loop)
        fixture.probe.pointee.watcher.start(.read)
        #expect(fixture.probe.pointee.watcher.interests == .read)
        run(fixture.loop)
        #expect(fixture.probe.pointee.readiness == [.write, .read])
    }

    @Test("An empty set of interests stops the watcher")
    func stopsWithoutInterests() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop, descriptor: pair.left, callback: recordAndStop,
            owner: fixture.owner)
        fixture.probe.pointee.watcher.start(.read)
        fixture.probe.pointee.watcher.start([])
        #expect(!fixture.probe.pointee.watcher.isActive)
        #expect(fixture.probe.pointee.watcher.interests.isEmpty)
        try send([1], to: pair.right)
        stop(fixture, afterTurns: 5)
        run(fixture.loop)
        #expect(fixture.probe.pointee.readiness.isEmpty)
    }

    @Test("A watcher stopped by another callback of the same turn is not called")
    func dropsEventOnItsWay() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        // Both are ready in the same poll; whichever comes first stops the other.
        let callback: ReadyCallback = { owner, _ in
            probe(owner).pointee.events.append("called")
            probe(owner).pointee.watcher.stop()
            probe(owner).pointee.other.stop()
        }
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop, descriptor: pair.left, callback: callback, owner: fixture.owner)
        fixture.probe.pointee.other.prepare(
            loop: fixture.loop, descriptor: pair.right, callback: callback, owner: fixture.owner)
        fixture.probe.pointee.watcher.start(.write)
        fixture.probe.pointee.other.start(.write)
        stop(fixture, afterTurns: 5)
        run(fixture.loop)
        #expect(fixture.probe.pointee.events == ["called"])
    }

    @Test("A hang-up shows as readable")
    func showsHangUp() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop, descriptor: pair.left, callback: recordAndStop,
            owner: fixture.owner)
        fixture.probe.pointee.watcher.start(.read)
        pair.closeRight()
        run(fixture.loop)
        #expect(fixture.probe.pointee.readiness == [.read])
    }

    @Test("A descriptor number that is used again is watched anew")
    func watchesReusedNumber() throws {
        let fixture = try Fixture()
        var pair = try SocketPair()
        for _ in 0..<3 {
            fixture.probe.pointee.watcher.prepare(
                loop: fixture.loop, descriptor: pair.left, callback: recordAndStop,
                owner: fixture.owner)
            fixture.probe.pointee.watcher.start(.read)
            try send([1], to: pair.right)
            run(fixture.loop)
            fixture.probe.pointee.watcher.stop()
            pair = try SocketPair()
        }
        #expect(fixture.probe.pointee.readiness == [.read, .read, .read])
    }
}

@Suite struct TimerWatcherTests {
    @Test("Timers call in the order of their deadlines and never early")
    func callsInOrder() throws {
        let loop = try EventLoop()
        let count = 20
        let timers = UnsafeMutablePointer<TimerWatcher>.allocate(capacity: count)
        timers.initialize(repeating: TimerWatcher(), count: count)
        defer {
            for index in 0..<count { timers[index].stop() }
            timers.deallocate()
        }
        struct Log {
            var loop: EventLoop
            var lateness: [Int64] = []
            var due: [UInt64] = []
            var timers: UnsafeMutablePointer<TimerWatcher>
        }
        let log = UnsafeMutablePointer<Log>.allocate(capacity: 1)
        log.initialize(to: Log(loop: loop, timers: timers))
        defer {
            log.deinitialize(count: 1)
            log.deallocate()
        }
        var generator = SeededGenerator(seed: 11)
        let deadlines = (0..<count).map { _ in
            loop.now + UInt64.random(in: 0...30_000_000, using: &generator)
        }
        log.pointee.due = deadlines.sorted(by: >)
        for index in 0..<count {
            timers[index].prepare(
                loop: loop,
                callback: { owner in
                    let log = owner.assumingMemoryBound(to: Log.self)
                    guard let due = log.pointee.due.popLast() else { return }
                    log.pointee.lateness.append(
                        Int64(log.pointee.loop.now) - Int64(due))
                    if log.pointee.due.isEmpty { log.pointee.loop.stop() }
                },
                owner: UnsafeMutableRawPointer(log)
            )
            timers[index].start(at: deadlines[index])
            #expect(timers[index].deadline == deadlines[index])
        }
        run(loop)
        #expect(log.pointee.lateness.count == count)
        #expect(log.pointee.lateness.allSatisfy { $0 >= 0 })
    }

    @Test("A deadline that has passed calls in the next turn, once")
    func callsAtOnce() throws {
        let fixture = try Fixture()
        fixture.probe.pointee.timer.prepare(
            loop: fixture.loop,
            callback: { owner in probe(owner).pointee.events.append("timer") },
            owner: fixture.owner)
        fixture.probe.pointee.timer.start(at: 1)
        #expect(fixture.probe.pointee.timer.isActive)
        stop(fixture, afterTurns: 5)
        run(fixture.loop)
        #expect(fixture.probe.pointee.events == ["timer"])
        #expect(!fixture.probe.pointee.timer.isActive)
        #expect(fixture.probe.pointee.timer.deadline == nil)
    }

    @Test("A timer that is set again counts from then")
    func setsAgain() throws {
        let fixture = try Fixture()
        fixture.probe.pointee.timer.prepare(
            loop: fixture.loop,
            callback: { owner in
                let probe = probe(owner)
                probe.pointee.times.append(probe.pointee.loop.now)
                if probe.pointee.times.count == 3 {
                    probe.pointee.loop.stop()
                } else {
                    probe.pointee.timer.start(after: 2_000_000)
                }
            },
            owner: fixture.owner)
        fixture.probe.pointee.timer.start(after: .max)
        #expect(fixture.probe.pointee.timer.deadline == .max)
        fixture.probe.pointee.timer.start(at: 1)
        run(fixture.loop)
        let times = fixture.probe.pointee.times
        #expect(times.count == 3)
        #expect(zip(times, times.dropFirst()).allSatisfy { $1 - $0 >= 2_000_000 })
    }

    @Test("A stopped timer does not call")
    func stops() throws {
        let fixture = try Fixture()
        fixture.probe.pointee.timer.prepare(
            loop: fixture.loop,
            callback: { owner in probe(owner).pointee.events.append("timer") },
            owner: fixture.owner)
        fixture.probe.pointee.timer.start(at: 1)
        fixture.probe.pointee.timer.stop()
        stop(fixture, afterTurns: 5)
        run(fixture.loop)
        #expect(fixture.probe.pointee.events.isEmpty)
    }
}

@Suite struct EventLoopTests {
    @Test("A turn ends once, after the watchers and before the next poll")
    func endsTurns() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        try send([1, 2], to: pair.right)
        fixture.probe.pointee.descriptor = pair.left
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop,
            descriptor: pair.left,
            callback: { owner, _ in
                var byte: UInt8 = 0
                recv(probe(owner).pointee.descriptor, &byte, 1, 0)
                probe(owner).pointee.events.append("read \(byte)")
            },
            owner: fixture.owner)
        fixture.probe.pointee.watcher.start(.read)
        fixture.loop.onTurnEnd(
            { owner in
                probe(owner).pointee.events.append("end")
                if probe(owner).pointee.events.count == 5 { probe(owner).pointee.loop.stop() }
            },
            owner: fixture.owner)
        run(fixture.loop)
        #expect(fixture.probe.pointee.events == ["end", "read 1", "end", "read 2", "end"])
    }

    @Test("What a turn's end starts counts for the poll that follows")
    func watchesFromTurnEnd() throws {
        let fixture = try Fixture()
        let pair = try SocketPair()
        fixture.probe.pointee.watcher.prepare(
            loop: fixture.loop, descriptor: pair.left, callback: recordAndStop,
            owner: fixture.owner)
        fixture.loop.onTurnEnd(
            { owner in
                probe(owner).pointee.turns += 1
                probe(owner).pointee.watcher.start(.write)
            },
            owner: fixture.owner)
        run(fixture.loop)
        #expect(fixture.probe.pointee.readiness == [.write])
        #expect(fixture.probe.pointee.turns == 1)
    }

    @Test("Another turn can be had without waiting, as often as asked")
    func runsAnotherTurn() throws {
        let fixture = try Fixture()
        stop(fixture, afterTurns: 100)
        run(fixture.loop)
        #expect(fixture.probe.pointee.turns == 100)
    }

    @Test("A stop before run makes that run return at once, and only that one")
    func stopsBeforeRun() throws {
        let fixture = try Fixture()
        stop(fixture, afterTurns: 1)
        fixture.loop.stop()
        fixture.loop.run()
        #expect(fixture.probe.pointee.turns == 0)
        run(fixture.loop)
        #expect(fixture.probe.pointee.turns == 1)
    }

    @Test("The time stands still within a turn and never goes back")
    func keepsTime() throws {
        let fixture = try Fixture()
        stop(fixture, afterTurns: 3)
        let before = fixture.loop.now
        run(fixture.loop)
        let after = fixture.loop.now
        #expect(after > before)
        #expect(after <= monotonicNanoseconds())
        #expect(fixture.loop.now == after)
    }

    @Test("A loop gives its descriptors back")
    func freesDescriptors() async {
        await #expect(processExitsWith: .success) {
            let before = dup(0)
            Socket.close(before)
            for _ in 0..<5 {
                let loop = try EventLoop()
                let mailbox = Mailbox<Int>()
                mailbox.attach(to: loop) { _ in loop.stop() }
                mailbox.post(1)
                loop.run()
                mailbox.close()
            }
            let after = dup(0)
            Socket.close(after)
            #expect(before == after)
        }
    }
}

@Suite struct MailboxTests {
    @Test("What was posted before attach is delivered after it")
    func deliversEarlyPosts() throws {
        let loop = try EventLoop()
        let mailbox = Mailbox<Int>()
        mailbox.post(1)
        mailbox.post(2)
        var received: [Int] = []
        mailbox.attach(to: loop) { batch in
            received += batch
            loop.stop()
        }
        run(loop)
        #expect(received == [1, 2])
        #expect(mailbox.close().isEmpty)
    }

    @Test("Everything that many threads post arrives once, in each one's order")
    func deliversFromThreads() throws {
        let loop = try EventLoop()
        let mailbox = Mailbox<(thread: Int, number: Int)>()
        let threadCount = 4
        let perThread = 5_000
        var next = [Int](repeating: 0, count: threadCount)
        var inOrder = true
        var total = 0
        mailbox.attach(to: loop) { batch in
            for (thread, number) in batch {
                if next[thread] != number { inOrder = false }
                next[thread] = number + 1
            }
            total += batch.count
            if total == threadCount * perThread { loop.stop() }
        }
        let threads = try (0..<threadCount).map { thread in
            try Thread.start(name: "poster \(thread)") {
                for number in 0..<perThread { mailbox.post((thread, number)) }
            }
        }
        run(loop)
        for thread in threads { thread.join() }
        #expect(inOrder)
        #expect(next == [Int](repeating: perThread, count: threadCount))
        #expect(mailbox.close().isEmpty)
    }

    @Test("A handler may post to its own box; that comes in a later batch")
    func postsFromHandler() throws {
        let loop = try EventLoop()
        let mailbox = Mailbox<Int>()
        var batches: [[Int]] = []
        mailbox.attach(to: loop) { batch in
            batches.append(batch)
            if batches.count == 3 { loop.stop() } else { mailbox.post(batches.count) }
        }
        mailbox.post(0)
        run(loop)
        #expect(batches == [[0], [1], [2]])
        mailbox.close()
    }

    @Test("Closing hands back what was not delivered, and later posts are refused")
    func closes() throws {
        let loop = try EventLoop()
        let mailbox = Mailbox<Int>()
        mailbox.attach(to: loop) { _ in Issue.record("nothing may be delivered") }
        #expect(mailbox.post(1))
        #expect(mailbox.post(2))
        #expect(mailbox.close() == [1, 2])
        #expect(mailbox.close().isEmpty)
        #expect(!mailbox.post(3))
    }

    @Test("A closed box lets go of its handler")
    func releasesHandler() throws {
        final class Token {}
        let loop = try EventLoop()
        let mailbox = Mailbox<Int>()
        weak var token: Token?
        do {
            let strong = Token()
            token = strong
            mailbox.attach(to: loop) { _ in _ = strong }
        }
        #expect(token != nil)
        mailbox.close()
        #expect(token == nil)
    }
}

@Suite struct ThreadTests {
    @Test("A thread runs its body under its name, and join waits for it")
    func runsBody() throws {
        let name = Mutex("")
        let thread = try Thread.start(name: "a name that is too long") {
            guard let file = fopen("/proc/thread-self/comm", "r") else { return }
            var line = [UInt8](repeating: 0, count: 64)
            let count = fread(&line, 1, line.count, file)
            fclose(file)
            name.withLock { $0 = String(decoding: line[..<count], as: UTF8.self) }
        }
        thread.join()
        #expect(name.withLock { $0 } == "a name that is \n")
    }
}

@Suite struct SignalWatcherTests {
    @Test("A blocked signal arrives in the loop, each number once")
    func receivesSignals() async {
        // In a process of its own: the mask must be set before any other thread exists.
        await #expect(processExitsWith: .success) {
            SignalWatcher.block([SIGTERM, SIGHUP])
            let thread = try Thread.start(name: "signals") {
                guard let loop = try? EventLoop() else { return }
                var received: [Int32] = []
                let watcher = try? SignalWatcher(loop: loop, signals: [SIGTERM, SIGHUP]) {
                    received.append($0)
                    if received.count == 2 { loop.stop() }
                }
                pthread_kill(pthread_self(), SIGHUP)
                pthread_kill(pthread_self(), SIGTERM)
                run(loop)
                #expect(Set(received) == [SIGTERM, SIGHUP])
                _ = watcher
            }
            thread.join()
        }
    }
}
