// A caller of `RequestFramer` as the data plane is one, which sees a stream in pieces.

import RESP

/// What can be asked of a framer in the middle of a stream.
struct RequestState: Equatable {
    var command: CommandClass?
    var isAtFrameStart: Bool
    var scanned: Int
    var missing: Int
}

struct RequestFeeder {
    var framer = RequestFramer()
    var events: [RequestEvent] = []
    private(set) var retained: [UInt8] = []
    private(set) var handedOn: [UInt8] = []
    private(set) var isBroken = false
    private let memory: FencedMemory

    init(memory: FencedMemory) { self.memory = memory }

    var state: RequestState {
        RequestState(
            command: framer.command, isAtFrameStart: framer.isAtFrameStart,
            scanned: framer.scanned + handedOn.count, missing: framer.missing)
    }

    /// Gives the framer more bytes.
    /// - Parameter handOn: of the bytes that may be handed on, how many are.
    mutating func feed(
        _ bytes: ArraySlice<UInt8>, atFront: Bool, handOn: (Int) -> Int = { _ in 0 }
    ) {
        if isBroken { return }
        retained += bytes
        while true {
            let pointer = memory.place(retained[...], atFront: atFront)
            switch framer.next(pointer, count: retained.count) {
            case .frame(let length, let command):
                events.append(.frame(handedOn + retained[..<length], command))
                retained.removeFirst(length)
                handedOn = []
            case .inline(let length):
                events.append(.inline(Array(retained[..<length])))
                retained.removeFirst(length)
            case .violation(let violation):
                events.append(.violation(violation))
                isBroken = true
                return
            case .incomplete:
                if framer.command != nil, case let count = handOn(framer.scanned), count > 0 {
                    framer.discard(count)
                    handedOn += retained[..<count]
                    retained.removeFirst(count)
                }
                return
            }
        }
    }

    /// All events, with what is left at the end of the stream.
    mutating func finish() -> [RequestEvent] {
        let rest = handedOn + retained
        return !isBroken && !rest.isEmpty ? events + [.unfinished(rest)] : events
    }
}
