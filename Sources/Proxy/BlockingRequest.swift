// A blocking command, taken apart at the one argument that says how long it may wait.
//
//     *3 $5 BLPOP $5 queue $1 0        the timeout is the last argument, in seconds; 0: for ever
//     *5 $6 BLMPOP $1 0 …              it is the first
//     *6 $5 XREAD $5 BLOCK $1 0 …      it stands behind BLOCK, in milliseconds
//     *3 $4 WAIT $1 1 $1 0             it is the last, in milliseconds
//
// Only numbers that are written in the plain way are understood. The server takes more (0x10, 1e3);
// such a request is not taken apart, and whoever sends it waits as the server lets it wait.

import RESP

/// One blocking request that can be sent again with another timeout.
struct BlockingRequest {
    private let head: [UInt8]
    private let tail: [UInt8]
    private let isInSeconds: Bool
    /// How long the client lets it wait; nil: for ever.
    let timeout: Duration?
    /// WAIT and its kin: about what went over this very connection, and never answered with a null.
    let isAboutConnection: Bool
    /// XREAD from `$`: what comes between two of them is seen by neither.
    let readsFromNow: Bool

    /// - Returns: nil if it does not block, or cannot be understood.
    init?(_ command: CommandClass, _ request: UnsafeRawBufferPointer) {
        guard let base = request.baseAddress else { return nil }
        var arguments = RequestArguments(request)
        guard let name = arguments.next() else { return nil }
        isAboutConnection = command == .wait
        isInSeconds = command == .blocking
        let isFirst =
            name.equalsIgnoringCase("BLMPOP") || name.equalsIgnoringCase("BZMPOP")
        /// Where the argument's header begins, its digits, and where the next argument begins.
        var found: (start: Int, digits: UnsafeRawBufferPointer, end: Int)?
        var position = Self.end(of: name, base)
        var isBehindBlock = false
        var readsFromNow = false
        while let argument = arguments.next() {
            let end = Self.end(of: argument, base)
            switch command {
            case .streamRead:
                if isBehindBlock {
                    found = (position, argument, end)
                    isBehindBlock = false
                } else if found == nil {
                    isBehindBlock = argument.equalsIgnoringCase("BLOCK")
                }
                readsFromNow = readsFromNow || argument.elementsEqual("$".utf8)
            default:
                if !isFirst || found == nil { found = (position, argument, end) }
            }
            position = end
        }
        guard let found, let timeout = Self.timeout(found.digits, isInSeconds) else { return nil }
        self.timeout = timeout == .zero ? nil : timeout
        self.readsFromNow = readsFromNow
        head = Array(request[..<found.start])
        tail = Array(request[found.end...])
    }

    /// The request with another timeout, which is rounded up and is not zero.
    func bytes(timeout: Duration?) -> [UInt8] {
        var digits = "0"
        if let timeout {
            let milliseconds = max(1, (timeout + .nanoseconds(999_999)) / .milliseconds(1))
            let whole = Int64(milliseconds)
            if isInSeconds {
                let rest = String(whole % 1000)
                digits = "\(whole / 1000)." + String(repeating: "0", count: 3 - rest.count) + rest
            } else {
                digits = "\(whole)"
            }
        }
        return head + Array("$\(digits.utf8.count)\r\n\(digits)\r\n".utf8) + tail
    }

    private static func end(
        of argument: UnsafeRawBufferPointer, _ base: UnsafeRawPointer
    ) -> Int {
        guard let start = argument.baseAddress else { return 0 }
        return start - base + argument.count + 2
    }

    /// `12` or, in seconds, `12.5`: no more than a year's.
    private static func timeout(
        _ digits: UnsafeRawBufferPointer, _ isInSeconds: Bool
    ) -> Duration? {
        let text = String(decoding: digits, as: UTF8.self)
        let allowed = text.utf8.allSatisfy { (0x30...0x39).contains($0) || $0 == 0x2E }
        guard allowed, text.utf8.count <= 20, let number = Double(text) else { return nil }
        if !isInSeconds && text.contains(".") { return nil }
        let seconds = isInSeconds ? number : number / 1000
        guard seconds <= 366 * 86400 else { return nil }
        return .seconds(seconds)
    }
}
