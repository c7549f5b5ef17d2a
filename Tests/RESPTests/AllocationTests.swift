import CAllocationCount
import RESP
import Testing

/// How often the closure allocates when it runs for the second time: the first time, the runtime may
/// put together the types it meets.
private func allocations(_ body: () -> Void) -> Int {
    body()
    let before = allocation_count()
    body()
    return allocation_count() - before
}

private func bytes(_ texts: String...) -> [UInt8] { Array(texts.joined().utf8) }

@Suite(.enabled(if: allocation_count() >= 0, "a sanitizer counts allocations itself"))
struct AllocationTests {
    @Test func `The counter sees an allocation that is freed at once`() {
        #expect(allocations { withExtendedLifetime([UInt8](repeating: 0, count: 100)) {} } > 0)
    }

    @Test func `Framing requests allocates nothing, whole or byte by byte, good or bad`() {
        let stream = bytes(
            "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n",
            "*3\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n$120\r\n\(String(repeating: "x", count: 120))\r\n",
            "PING\r\n*0\r\n\r\n", "*12\r\n\(String(repeating: "$1\r\nx\r\n", count: 12))")
        let bad = [
            "*x\r\n", "*1\r\n$x\r\n", "*1\r\n:\r\n", "*1\r\n$1\r\nxyz", "x\0", "\u{16}\u{3}",
        ]
        .map { Array($0.utf8) }
        var frames = 0
        var violations = 0
        let count = stream.withUnsafeBytes { raw in
            allocations {
                for _ in 0..<200 {
                    var framer = RequestFramer()
                    frames += requests(raw.baseAddress!, 0, raw.count, step: raw.count, &framer)
                    frames += requests(raw.baseAddress!, 0, raw.count, step: 1, &framer)
                }
            }
        }
        #expect(count == 0)
        #expect(frames == 2 * 200 * 2 * 6)
        for bytes in bad {
            let count = bytes.withUnsafeBytes { raw in
                allocations {
                    var framer = RequestFramer()
                    if case .violation = framer.next(raw.baseAddress!, count: raw.count) {
                        violations += 1
                    }
                }
            }
            #expect(count == 0)
        }
        #expect(violations == 2 * bad.count)
    }

    /// Feeds a growing prefix, as a caller does who reads `step` bytes at a time.
    private func requests(
        _ base: UnsafeRawPointer, _ start: Int, _ end: Int, step: Int, _ framer: inout RequestFramer
    ) -> Int {
        var frames = 0
        var position = start
        var arrived = start
        while arrived < end {
            arrived = min(end, arrived + step)
            scan: while position < arrived {
                switch framer.next(base + position, count: arrived - position) {
                case .frame(let length, _), .inline(let length):
                    frames += 1
                    position += length
                case .incomplete, .violation:
                    break scan
                }
            }
        }
        return frames
    }

    @Test func `Framing replies allocates nothing, whole or byte by byte`() {
        let stream = bytes(
            "+OK\r\n:12\r\n:-1234567\r\n$-1\r\n_\r\n-ERR no\r\n,1.5\r\n#t\r\n(1\r\n",
            "$64\r\n\(String(repeating: "x", count: 64))\r\n",
            "|1\r\n+k\r\n:1\r\n*3\r\n%1\r\n+a\r\n~1\r\n:1\r\n!1\r\ne\r\n=5\r\ntxt:a\r\n",
            ">2\r\n+invalidate\r\n*-1\r\n")
        var frames = 0
        let count = stream.withUnsafeBytes { raw in
            allocations {
                for _ in 0..<200 {
                    var framer = ReplyFramer()
                    for pass in 0..<2 {
                        let step = pass == 0 ? raw.count : 1
                        var start = 0
                        while start < raw.count {
                            let end = min(raw.count, start + step)
                            scan: while true {
                                switch framer.next(raw.baseAddress!, from: start, to: end) {
                                case .reply(let next), .push(let next):
                                    frames += 1
                                    start = next
                                case .incomplete, .violation:
                                    break scan
                                }
                            }
                            start = end
                        }
                    }
                }
            }
        }
        #expect(count == 0)
        #expect(frames == 2 * 200 * 2 * 12)
    }

    @Test func `Reading a request's arguments and names allocates nothing`() {
        let stream = bytes("*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n")
        var found = 0
        let count = stream.withUnsafeBytes { raw in
            allocations {
                for _ in 0..<200 {
                    var arguments = RequestArguments(raw)
                    while let argument = arguments.next() {
                        if argument.equalsIgnoringCase("off") { found += 1 }
                        if let base = argument.baseAddress,
                            CommandClass.recognise(base, count: argument.count) == .client
                        {
                            found += 1
                        }
                    }
                }
            }
        }
        #expect(count == 0)
        #expect(found == 2 * 400)
    }
}
