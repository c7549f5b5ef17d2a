// A console client's bytes become words: the same framer that serves Redis clients, with small limits.

import RESP

/// Collects bytes and gives out whole requests.
struct ConsoleRequests {
    /// The longest request. Orders are short.
    static let longest = 16_384

    enum Next: Equatable {
        case request([String])
        case incomplete
        /// Not a request: the answer, behind which the client is closed.
        case broken(String)
    }

    private var bytes: [UInt8] = []
    private var framer = RequestFramer()

    mutating func append(_ more: UnsafeRawBufferPointer) { bytes += more }

    /// The next request, which has one word at least.
    mutating func next() -> Next {
        while !bytes.isEmpty {
            let count = bytes.count
            let scan = bytes.withUnsafeBytes { bytes -> RequestScan in
                guard let base = bytes.baseAddress else { return .incomplete }
                return framer.next(base, count: count)
            }
            switch scan {
            case .frame(let length, _):
                let words = words(Array(bytes[..<length]))
                bytes.removeFirst(length)
                if !words.isEmpty { return .request(words) }
            case .inline(let length):
                let line = Array(bytes[..<length])
                bytes.removeFirst(length)
                switch inline(line) {
                case .request(let words) where words.isEmpty: continue
                case let next: return next
                }
            case .incomplete:
                guard count <= Self.longest else {
                    return .broken(
                        "wanted a request of at most \(Self.longest) bytes, got a longer one")
                }
                return .incomplete
            case .violation(let violation):
                return .broken("wanted a request in RESP, got \(violation.operatorDescription)")
            }
        }
        return .incomplete
    }

    private func inline(_ line: [UInt8]) -> Next {
        var request = [UInt8](repeating: 0, count: InlineCommand.capacity(for: line.count))
        let result = request.withUnsafeMutableBytes { memory in
            line.withUnsafeBytes { InlineCommand.encode($0, into: memory) }
        }
        switch result {
        case .none: return .request([])
        case .request(let count): return .request(words(Array(request[..<count])))
        case .violation(let violation):
            return .broken("wanted a command, got \(violation.operatorDescription)")
        }
    }

    private func words(_ frame: [UInt8]) -> [String] {
        frame.withUnsafeBytes { frame in
            RequestArguments(frame).map { String(decoding: $0, as: UTF8.self) }
        }
    }
}
