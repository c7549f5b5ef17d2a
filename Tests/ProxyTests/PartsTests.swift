// The small parts: buffer, queue of runs, time, jitter.

import Proxy
import Testing

@Suite("Buffer")
struct BufferTests {
    private func text(_ buffer: borrowing Buffer) -> String {
        guard !buffer.isEmpty else { return "" }
        return String(
            decoding: UnsafeRawBufferPointer(start: buffer.bytes, count: buffer.count),
            as: UTF8.self
        )
    }

    @Test("What goes in comes out in order, whatever is taken in between")
    func order() {
        var buffer = Buffer()
        var dice = Dice(seed: 3)
        var model: [UInt8] = []
        for _ in 0..<5_000 {
            if dice.chance(1, in: 2) {
                let bytes = (0..<dice.roll(300)).map { _ in UInt8(dice.roll(256)) }
                buffer.append(bytes)
                model += bytes
            } else {
                let count = dice.roll(model.count + 1)
                buffer.consume(count)
                model.removeFirst(count)
            }
            guard buffer.count == model.count else { break }
            if !model.isEmpty {
                let bytes = UnsafeRawBufferPointer(start: buffer.bytes, count: buffer.count)
                guard bytes.elementsEqual(model) else { break }
            }
        }
        #expect(buffer.count == model.count)
        #expect(
            model.isEmpty
                || UnsafeRawBufferPointer(start: buffer.bytes, count: buffer.count)
                    .elementsEqual(model)
        )
    }

    @Test("An empty buffer holds no memory, and gives it back when asked")
    func release() {
        var buffer = Buffer()
        var reserved = buffer.reserved
        #expect(reserved == 0)
        buffer.append("abc".utf8)
        buffer.release()
        reserved = buffer.reserved
        #expect(reserved > 0, "there is something in it")
        buffer.consume(3)
        buffer.release(above: 1 << 20)
        reserved = buffer.reserved
        #expect(reserved > 0, "it is small enough to keep")
        buffer.release()
        reserved = buffer.reserved
        #expect(reserved == 0)
    }

    @Test("Spare memory is as large as wanted, and what was put there is announced")
    func spare() {
        var buffer = Buffer()
        buffer.append("head".utf8)
        let spare = buffer.spare(10_000)
        #expect(spare.count >= 10_000)
        spare.copyBytes(from: "tail".utf8)
        buffer.didAppend(4)
        #expect(text(buffer) == "headtail")
    }

    @Test("A sensitive buffer leaves nothing behind when it moves its content")
    func sensitive() {
        var buffer = Buffer(sensitive: true)
        buffer.append(String(repeating: "S", count: 400).utf8)
        buffer.consume(390)
        // Moves the ten bytes to the front, without a larger piece of memory.
        let spare = buffer.spare(450)
        let leftovers = UnsafeRawBufferPointer(spare).filter { $0 == UInt8(ascii: "S") }
        #expect(leftovers.isEmpty)
        #expect(text(buffer) == "SSSSSSSSSS")
    }

    @Test("Bytes can be zeroed where they stand")
    func wipe() {
        var buffer = Buffer(sensitive: true)
        buffer.append("secret and more".utf8)
        buffer.wipe(6)
        #expect(text(buffer) == "\0\0\0\0\0\0 and more")
    }

    @Test("Bytes can be taken out of the middle")
    func remove() {
        var buffer = Buffer()
        buffer.append("one two three".utf8)
        buffer.remove(at: 3, 4)
        #expect(text(buffer) == "one three")
        buffer.remove(at: 0, 9)
        let isEmpty = buffer.isEmpty
        #expect(isEmpty)
    }
}

@Suite("Queue of runs")
struct RunQueueTests {
    private func run(_ replies: UInt32) -> Run {
        Run(
            session: SessionRef(bitPattern: 64)!,
            replies: replies,
            bytes: 0,
            since: Instant(nanoseconds: 0)
        )
    }

    @Test("Runs come out in the order in which they went in, through any growth")
    func order() {
        var queue = RunQueue()
        var dice = Dice(seed: 5)
        var model: [UInt32] = []
        var next: UInt32 = 0
        for _ in 0..<5_000 {
            if dice.chance(3, in: 5) {
                queue.append(run(next))
                model.append(next)
                next += 1
            } else if !model.isEmpty {
                guard queue.head.pointee.replies == model[0] else { break }
                queue.removeFirst()
                model.removeFirst()
            }
            guard queue.count == model.count else { break }
        }
        let all = (0..<queue.count).map { queue[$0].pointee.replies }
        #expect(all == model)
    }

    @Test("The newest runs can be taken back")
    func removeLast() {
        var queue = RunQueue()
        for replies in 1...5 as ClosedRange<UInt32> { queue.append(run(replies)) }
        queue.removeLast(2)
        let last = queue.last.pointee.replies
        #expect(last == 3)
        queue.removeAll()
        let isEmpty = queue.isEmpty
        #expect(isEmpty)
    }
}

@Suite("Time")
struct TimeTests {
    @Test("Seconds and fractions are added")
    func sum() {
        #expect(
            Instant(nanoseconds: 5) + .milliseconds(1_500) == Instant(nanoseconds: 1_500_000_005))
    }

    @Test("A deadline beyond all time never comes, one before now is now")
    func saturation() {
        let late = Instant(nanoseconds: .max - 1)
        #expect(late + .seconds(1) == Instant(nanoseconds: .max))
        #expect(late + .seconds(Int64.max) == Instant(nanoseconds: .max))
        #expect(late + .seconds(-1) == late)
    }

    @Test("A time span is never negative")
    func since() {
        let (early, late) = (Instant(nanoseconds: 10), Instant(nanoseconds: 25))
        #expect(late.since(early) == .nanoseconds(15))
        #expect(early.since(late) == .zero)
    }

    @Test("The clock of a router never goes back")
    func monotonic() {
        let bench = Bench()
        bench.router.advance(to: Instant(nanoseconds: 5_000_000_000))
        bench.router.advance(to: Instant(nanoseconds: 4_000_000_000))
        #expect(bench.router.now == Instant(nanoseconds: 5_000_000_000))
    }
}

@Suite("Jitter")
struct RandomSourceTests {
    @Test("A seed gives the numbers of SplitMix64")
    func vector() {
        // Source: the reference implementation's first outputs for the seed 1234567.
        var source = RandomSource(seed: 1_234_567)
        #expect(source.next() == 6_457_827_717_110_365_317)
        #expect(source.next() == 3_203_168_211_198_807_973)
        #expect(source.next() == 9_817_491_932_198_370_423)
    }
}
