// Everything that is bounded, in one place, each bound with its reason.

/// The bounds of one worker's sessions and upstream connections.
package struct Limits: Sendable {
    /// Bytes taken from one client in one read; also the fairness between clients in a turn.
    package var receiveBuffer = 65_536
    /// Decrypted bytes framed at once. Several TLS records (16 KiB each), so that a burst of
    /// replies costs one send per client.
    package var replyChunk = 262_144
    /// The longest request that shares a connection. A longer one streams through a connection of
    /// its session's own, because half of it would hold up everybody else.
    package var sharedRequest = 65_536
    /// The longest AUTH or HELLO. The server itself takes 10 arguments of 16 KiB before login.
    package var loginRequest = 65_536
    /// Arguments of a request, and bytes of each, from a client that has not logged in where it
    /// must. The server's own.
    package var argumentsBeforeLogin = 10
    package var argumentBeforeLogin = 16_384
    /// How long a client may take to log in where it must.
    package var loginDeadline = Duration.seconds(10)
    /// Bytes waiting to be sent on one upstream connection before its sessions are not read.
    package var upstreamBuffer = 1_048_576
    /// The same on a session's own connection, where it is what an upload may take of memory.
    package var uploadBuffer = 65_536
    /// Bytes of replies that one client may leave unread before its commands are not read.
    package var replyBuffer = 524_288
    /// Bytes of replies that one client may leave unread on a shared connection at all: it can be
    /// reached only by replies to what was already in flight.
    package var replyBufferMaximum = 268_435_456
    /// A reply above this size is big: it may pause the connection that it comes through, and
    /// its session moves to a connection of its own.
    package var bigReply = 65_536
    /// Bytes that are read from a client and kept while a command of its may block and others wait
    /// behind it, so that its end is seen at once. Beyond that it is looked for at every tick, and
    /// shows once all before it lies in the kernel's buffer. (The server itself keeps 1 GiB.)
    package var keptInput = 1_048_576
    /// Requests in flight of one session before anything is known about the size of its replies.
    package var initialWindow: UInt32 = 64
    /// Requests in flight of one session at most.
    package var maximumWindow: UInt32 = 65_536
    /// Bytes of replies that one session's requests in flight may be expected to bring.
    package var replyWindow = 1_048_576
    /// How long a client may leave a big reply unread that fills a shared connection. The time
    /// begins anew with each quarter of `replyBuffer` that it takes.
    package var slowReaderTimeout = Duration.seconds(5)
    /// How long an upload may bring nothing before it is closed to make room for a session that
    /// waits for a connection of its own.
    package var uploadStall = Duration.seconds(1)
    /// How long commands wait for an upstream that cannot be reached.
    package var upstreamWait = Duration.seconds(5)
    /// How long commands wait while a refused credential is read again, and how long the server
    /// may take to answer a login.
    package var loginTimeout = Duration.seconds(5)
    /// Over this time the connections of a user are spread that log in anew because the password
    /// is another one.
    package var renewalSpread = Duration.seconds(1)
    /// Pause before the second attempt to renew a login; doubles with each failure.
    package var renewalRetry = Duration.seconds(1)
    package var renewalRetryMaximum = Duration.seconds(60)
    /// How long before the first renewal that is due the performer is asked for ticks. Longer than
    /// the time between two calls of `trim`, behind which it looks.
    package var renewalNotice = Duration.seconds(12)
    /// Sessions that may own an upstream connection at the same time, in one worker.
    package var maximumPinned = 1_000
    /// Logged-in connections of a pool that stay for the next session that needs one of its own,
    /// however long nobody does. A login per transaction would be slow, and logins are what AWS
    /// throttles; more than these stay as long as they are in use now and then (`trim`).
    package var spareConnections = 2
    /// Shared connections of each pool.
    package var connectionsPerPool = 1

    package init() {}
}
