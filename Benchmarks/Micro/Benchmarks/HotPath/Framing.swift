// Where requests and replies end: what one frame costs.

import Benchmark
import Glibc
import RESP

/// Memory that stays as long as the process.
struct Stream {
    let base: UnsafeRawPointer
    let count: Int

    init(_ text: String, repeated: Int = 1) {
        let bytes = Array(repeatElement(Array(text.utf8), count: repeated).joined())
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes.count, alignment: 64)
        memory.copyMemory(from: bytes, byteCount: bytes.count)
        base = UnsafeRawPointer(memory)
        count = bytes.count
    }
}

func command(_ arguments: String...) -> String {
    "*\(arguments.count)\r\n" + arguments.map { "$\($0.utf8.count)\r\n\($0)\r\n" }.joined()
}

func text(_ count: Int) -> String { String(repeating: "x", count: count) }

/// Frames the whole stream, which holds whole frames only.
private func requests(_ stream: Stream) -> Int {
    var framer = RequestFramer()
    let base = launder(stream.base)
    var position = 0
    var frames = 0
    while position < stream.count {
        switch framer.next(base + position, count: stream.count - position) {
        case .frame(let length, _), .inline(let length):
            position += length
            frames += 1
        case .incomplete, .violation:
            fatalError("the benchmark's requests must be whole and right")
        }
    }
    return frames
}

private func replies(_ stream: Stream) -> Int {
    var framer = ReplyFramer()
    let base = launder(stream.base)
    var position = 0
    var frames = 0
    while position < stream.count {
        switch framer.next(base, from: position, to: stream.count) {
        case .reply(let next), .push(let next):
            position = next
            frames += 1
        case .incomplete, .violation:
            fatalError("the benchmark's replies must be whole and right")
        }
    }
    return frames
}

/// A stream is framed whole again and again; figures are for one frame, so it holds as many as an
/// iteration of the library has operations.
private func measureFrames(
    _ name: String,
    _ frames: [String],
    scale: BenchmarkScalingFactor = .kilo,
    _ frame: @escaping (Stream) -> Int
) {
    let repeated = scale.rawValue / frames.count
    let stream = Stream(frames.joined(), repeated: repeated)
    measure(name, bytes: stream.count / (repeated * frames.count), scale: scale) { _ in
        blackHole(frame(stream))
    }
}

func framingBenchmarks() {
    let get = command("GET", "key:000000000001")
    let set = command("SET", "key:000000000001", text(64))
    measureFrames("requests: GET, 36 bytes", [get], requests)
    measureFrames("requests: SET of 64 bytes", [set], requests)
    measureFrames(
        "requests: mixed",
        [
            get, set, command("INCR", "counter:1"), command("HSET", "hash", "field", text(20)),
            command("LPUSH", "queue", text(200)), command("EXPIRE", "key:1", "60"),
            command("ZADD", "set", "1", text(12)), command("MGET", "a", "b", "c", "d", "e"),
        ],
        requests)
    measureFrames("requests: SET of 16 KiB", [command("SET", "key", text(16_384))], requests)
    measureFrames(
        "requests: SET of 1 MiB", [command("SET", "key", text(1_048_576))], scale: .one, requests)

    measureFrames("replies: +OK", ["+OK\r\n"], replies)
    measureFrames("replies: bulk string of 64 bytes", ["$64\r\n\(text(64))\r\n"], replies)
    measureFrames(
        "replies: mixed",
        [
            "+OK\r\n", ":12\r\n", "$64\r\n\(text(64))\r\n", "$-1\r\n", "-ERR no such key\r\n",
            "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n", "$200\r\n\(text(200))\r\n", ":0\r\n",
        ],
        replies)
    measureFrames("replies: bulk string of 16 KiB", ["$16384\r\n\(text(16_384))\r\n"], replies)
    measureFrames(
        "replies: RESP3, seven deep",
        [
            "%2\r\n+a\r\n~2\r\n:1\r\n*2\r\n%1\r\n+b\r\n*1\r\n%1\r\n,1.5\r\n*2\r\n#t\r\n_\r\n+c\r\n"
                + "+d\r\n=8\r\ntxt:text\r\n"
        ],
        replies)
}
