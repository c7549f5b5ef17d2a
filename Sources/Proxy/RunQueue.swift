// The replies that an upstream connection owes, in the order in which they will come.
//
//      head                     sent │ not handed over yet
//       ▼                            ▼
//   ┌────────┬────────┬────────┬────────┬────────┐
//   │ s1 ×3  │ s2 ×1  │ s1 ×1  │ s3 ×16 │ s2 ×2  │        one entry a run, not one a command
//   └────────┴────────┴────────┴────────┴────────┘
//
// A run is never partly handed over: the outgoing buffer goes to TLS whole, and a run that went
// is closed to further requests. So when a connection is lost, every run is one of two things:
// sent (the outcome is unknown) or unsent (nothing happened yet).

/// What the answer to a request tells about the connection that gave it.
package enum RunKind: UInt8, BitwiseCopyable {
    /// Nothing.
    case plain
    /// Success opens a transaction.
    case multi
    /// Unless it is refused, ends a transaction and all watches.
    case exec
    /// Success ends a transaction and all watches.
    case discard
    case watch
    case unwatch
    /// The command no longer waits for others.
    case blocking
    /// Success leaves the connection in a state of its session's own.
    case lasting
    /// Success tells the session the connection's id.
    case identity
    /// Any of the three: a push for each name, or one error.
    case subscribe
    /// Any of the three, with names: a push for each, or one error.
    case unsubscribe
    /// Without names: a push for each that is left, one at least, or an error.
    case unsubscribeAll
    case punsubscribeAll
    case sunsubscribeAll
    /// Of a RESP2 subscriber, whose answer looks different.
    case ping
    /// Success logs the connection out, and ends all that ties it to its session but its id.
    case reset
    /// HELLO of our own, which the server does not refuse.
    case speak
    /// Success changes the session's database, and the connection's.
    case select
    /// Success changes the session's protocol, and the connection's for good.
    case hello
    /// Success gives the session and the connection a name.
    case setName
    /// Success shows that the user may ask for its name.
    case getName
    /// Success says of the session and the connection which library the client uses.
    case setInfo
    /// Sent instead of what the client said of CLIENT REPLY, which takes effect with its success.
    case replyMode
    /// One of ours, before a session's first on a connection that another used: must succeed.
    case prelude
    /// The MULTI of a whole transaction on a shared connection.
    case sharedMulti
    /// The EXEC of a whole transaction on a shared connection: must end it.
    case sharedExec
}

/// Consecutive requests of one session on one upstream connection.
package struct Run: BitwiseCopyable {
    package var session: SessionRef
    /// Replies still to come. At least 1 while the run is in the queue.
    package var replies: UInt32
    /// Bytes that the requests take in the outgoing buffer; of no meaning once handed over.
    package var bytes: UInt32
    /// Of one request alone, unless it is plain.
    package var kind = RunKind.plain
    /// The replies are nobody's: the requests are the proxy's own, or their client turned replies
    /// off. They count as owed all the same, because what follows has to wait for them.
    package var isMuted = false
    /// When the first of them began to wait for the connection; only looked at while unsent.
    package var since: Instant

    /// A run that is complete: all facts about the requests, and what their answer tells.
    package init(
        session: SessionRef,
        replies: UInt32,
        bytes: UInt32,
        kind: RunKind = .plain,
        isMuted: Bool = false,
        since: Instant
    ) {
        self.session = session
        self.replies = replies
        self.bytes = bytes
        self.kind = kind
        self.isMuted = isMuted
        self.since = since
    }
}

/// A ring of runs that grows and never shrinks.
package struct RunQueue: ~Copyable {
    private var storage: UnsafeMutablePointer<Run>?
    private var capacity = 0
    private var first = 0
    package private(set) var count = 0

    /// An empty queue, without memory.
    package init() {}

    deinit {
        storage?.deallocate()
    }

    package var isEmpty: Bool { count == 0 }

    /// The oldest run; there must be one.
    @inline(__always)
    package var head: UnsafeMutablePointer<Run> {
        precondition(count > 0)
        return self[0]
    }

    /// The newest run; there must be one.
    @inline(__always)
    package var last: UnsafeMutablePointer<Run> {
        precondition(count > 0)
        return self[count &- 1]
    }

    /// The run at `index`, counted from the oldest.
    @inline(__always)
    package subscript(index: Int) -> UnsafeMutablePointer<Run> {
        // swift-format-ignore: NeverForceUnwrap
        storage! + ((first &+ index) & (capacity &- 1))
    }

    @inline(__always)
    package mutating func append(_ run: Run) {
        if count == capacity { grow() }
        // swift-format-ignore: NeverForceUnwrap
        storage![(first &+ count) & (capacity &- 1)] = run
        count &+= 1
    }

    @inline(__always)
    package mutating func removeFirst() {
        precondition(count > 0)
        first = (first &+ 1) & (capacity &- 1)
        count &-= 1
    }

    package mutating func removeLast(_ amount: Int) {
        precondition(amount <= count)
        count &-= amount
    }

    package mutating func removeAll() {
        count = 0
    }

    private mutating func grow() {
        let size = max(16, capacity * 2)
        let memory = UnsafeMutablePointer<Run>.allocate(capacity: size)
        for index in 0..<count { (memory + index).initialize(to: self[index].pointee) }
        storage?.deallocate()
        storage = memory
        capacity = size
        first = 0
    }
}
