// A caller of `ReplyFramer` as the data plane is one, which sees each byte of a stream once.

import RESP

/// What can be asked of a framer in the middle of a stream.
struct ReplyState: Equatable {
    var type: UInt8
    var inPush: Bool
    var isAtFrameStart: Bool
    var bulkRemaining: Int
}

struct ReplyFeeder {
    var framer = ReplyFramer()
    private(set) var events: [ReplyEvent] = []
    private(set) var isBroken = false
    private var fed = 0
    private var frameStart = 0
    private let memory: FencedMemory

    init(memory: FencedMemory) { self.memory = memory }

    var state: ReplyState {
        ReplyState(
            type: framer.type, inPush: framer.inPush, isAtFrameStart: framer.isAtFrameStart,
            bulkRemaining: framer.bulkRemaining)
    }

    mutating func feed(_ bytes: ArraySlice<UInt8>, atFront: Bool) {
        if isBroken { return }
        let pointer = memory.place(bytes, atFront: atFront)
        var position = 0
        while true {
            switch framer.next(pointer, from: position, to: bytes.count) {
            case .reply(let end):
                events.append(.reply(type: framer.type, end: fed + end))
                position = end
                frameStart = fed + end
            case .push(let end):
                events.append(.push(end: fed + end))
                position = end
                frameStart = fed + end
            case .violation:
                events.append(.violation)
                isBroken = true
                return
            case .incomplete:
                fed += bytes.count
                return
            }
        }
    }

    /// All events, with what is left at the end of the stream.
    func finish() -> [ReplyEvent] {
        !isBroken && !framer.isAtFrameStart ? events + [.unfinished(start: frameStart)] : events
    }
}
