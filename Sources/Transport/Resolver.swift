// Names to addresses, off the loops.
//
// getaddrinfo blocks, for seconds when a name server is away, so one thread of its own does
// nothing else. Requests for the same host and port that wait together share one lookup. The
// thread is there while there are names to look up; an address in figures needs none.

import Glibc
import Synchronization

/// Why a name has no address.
package struct ResolveError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The name.
    package let host: String
    /// The system's words, such as `Name or service not known`.
    package let reason: String

    package var description: String { "cannot resolve \"\(host)\": \(reason)" }
}

/// What a lookup came to: at least one address, in the system's order of preference (RFC 6724).
package typealias ResolveResult = Result<[SocketAddress], ResolveError>

/// Looks names up on a thread of its own. Shared by all workers; usable from any thread.
package final class Resolver: Sendable {
    /// Requests that may wait; one worker has at most one per upstream.
    package static let queueLimit = 1024

    private struct Request {
        let host: String
        let port: UInt16
        let completion: @Sendable (ResolveResult) -> Void
    }

    private final class Queue: Sendable {
        struct State {
            var requests: [Request] = []
            var hasThread = false
            var isClosed = false
        }

        let state = Mutex(State())
    }

    private let queue = Queue()

    package init() {}

    /// Looks `host` up and calls `completion` once, on the resolver's thread.
    ///
    /// For an IP address the call happens here and now, before `resolve` returns; so too when the
    /// queue is full. A loop's completion posts to its mailbox in any case.
    package func resolve(
        host: String,
        port: UInt16,
        completion: @escaping @Sendable (ResolveResult) -> Void
    ) {
        if let address = SocketAddress(literal: host, port: port) {
            completion(.success([address]))
            return
        }
        let request = Request(host: host, port: port, completion: completion)
        let refusal: String? = queue.state.withLock { state in
            if state.isClosed { return "the resolver is closed" }
            if state.requests.count >= Self.queueLimit {
                return "\(Self.queueLimit) lookups wait already"
            }
            if !state.hasThread {
                let queue = queue
                do throws(SystemError) {
                    _ = try Thread.start(name: "resolver") { Self.run(queue) }
                    state.hasThread = true
                } catch {
                    return error.description
                }
            }
            state.requests.append(request)
            return nil
        }
        if let refusal { completion(.failure(ResolveError(host: host, reason: refusal))) }
    }

    deinit { close() }

    /// Refuses what waits and ends the thread after the lookup it is in. May be called twice.
    package func close() {
        let rest = queue.state.withLock { state in
            state.isClosed = true
            defer { state.requests = [] }
            return state.requests
        }
        for request in rest {
            let error = ResolveError(host: request.host, reason: "the resolver is closed")
            request.completion(.failure(error))
        }
    }

    private static func run(_ queue: Queue) {
        while let batch = nextBatch(queue) {
            let result = lookUp(host: batch[0].host, port: batch[0].port)
            for request in batch { request.completion(result) }
        }
    }

    /// Takes the oldest request and all that ask the same; nil, and no thread any more, when none
    /// is left.
    private static func nextBatch(_ queue: Queue) -> [Request]? {
        queue.state.withLock { state in
            guard let first = state.requests.first else {
                state.hasThread = false
                return nil
            }
            var batch: [Request] = []
            var rest: [Request] = []
            for request in state.requests {
                if request.host == first.host && request.port == first.port {
                    batch.append(request)
                } else {
                    rest.append(request)
                }
            }
            state.requests = rest
            return batch
        }
    }

    /// Looks a name up here and now, however long that takes.
    package static func lookUp(host: String, port: UInt16) -> ResolveResult {
        if let address = SocketAddress(literal: host, port: port) { return .success([address]) }
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, String(port), &hints, &list)
        if status != 0 {
            let number = errno
            let reason =
                status == EAI_SYSTEM
                ? SystemError(call: "getaddrinfo", number: number).description
                : String(cString: gai_strerror(status))
            return .failure(ResolveError(host: host, reason: reason))
        }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next {
            if let pointer = entry.pointee.ai_addr,
                let address = SocketAddress(copying: pointer, length: entry.pointee.ai_addrlen),
                !addresses.contains(address)
            {
                addresses.append(address)
            }
            next = entry.pointee.ai_next
        }
        if addresses.isEmpty {
            return .failure(ResolveError(host: host, reason: "the name has no address"))
        }
        return .success(addresses)
    }
}
