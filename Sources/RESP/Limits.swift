// The server's own limits on a request, under their own names.
//
// The proxy refuses what the server would refuse and nothing else, so each figure is the server's.
// Where the server's verdict depends on how the bytes happened to be split over its reads (a line
// of more than 64 KiB), the strictest of its verdicts is taken, so that ours never depends on it.

/// The limits a request must keep, from redis-server.
package enum Limits {
    /// The most arguments a request may have.
    ///
    /// Source: Redis `networking.c`, `processMultibulkBuffer`: `ll > INT_MAX` is refused.
    package static let multibulkCount = 2_147_483_647

    /// The most bytes one argument may have, 512 MiB.
    ///
    /// Source: Redis `config.c`, default of `proto-max-bulk-len`. A server configured for more is
    /// not followed.
    package static let bulkBytes = 512 * 1024 * 1024

    /// The most bytes that may stand before the line feed of an inline command, and before the
    /// carriage return of a `*n` or `$n` line.
    ///
    /// Source: Redis `server.h`, `PROTO_INLINE_MAX_SIZE`: more bytes than this without the end of
    /// the line are refused.
    package static let lineBytes = 64 * 1024
}
