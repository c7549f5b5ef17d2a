// How fast one source may try logins.
//
// A failed attempt is answered late: 100 ms after the first failure, twice as long after each
// further one, up to 2 s; a minute without a failure forgets them all. A source has few attempts
// under way at once, the late answers among them, and what it sends beyond them waits. So one source
// gets at most `parallel` guesses in `longestDelay`, over however many connections, and a right
// password is never answered late for the failures of others.
//
// A success does not clear the failures: whoever has one password could guess at another's with it.
//
// The source is the user where the kernel attests one, and otherwise the address: of IPv6 the first
// 64 bits, since the rest is free to choose.

package import Identity

/// Whose failures count together.
package enum LoginSource: Hashable, Sendable {
    case user(UInt32)
    case address(IPAddress)
    /// A client of a Unix socket of whom the kernel says nothing.
    case unknown

    package init(_ client: Client) {
        if let userID = client.userID {
            self = .user(userID)
        } else if let address = client.address {
            self = .address(address.isIPv4 ? address : address.prefix(64))
        } else {
            self = .unknown
        }
    }
}

/// The failures of the last minute. A value without a clock; times are nanoseconds.
package struct LoginFailures {
    package static let firstDelay: UInt64 = 100_000_000
    package static let longestDelay: UInt64 = 2_000_000_000
    package static let memory: UInt64 = 60_000_000_000
    /// Attempts of one source that may be under way.
    package static let parallel = 8
    /// Sources that are remembered. Reached: the one that has been quiet for longest is forgotten.
    package static let sourceLimit = 4096

    private struct Record {
        var failures = 0
        /// When the last of them was.
        var last: UInt64 = 0
        var underWay = 0
    }

    private var records: [LoginSource: Record] = [:]

    package init() {}

    /// Begins an attempt; false: enough of the source's are under way.
    package mutating func begin(_ source: LoginSource, at now: UInt64) -> Bool {
        if records[source] == nil {
            if records.count >= Self.sourceLimit { makeRoom(now) }
            // Everybody has attempts under way, which no real crowd of clients has: this one waits
            // for nobody and is not remembered.
            if records.count >= Self.sourceLimit { return true }
        }
        var record = records[source] ?? Record()
        guard record.underWay < Self.parallel else { return false }
        record.underWay += 1
        records[source] = record
        return true
    }

    /// An attempt has failed, and is under way until its late answer has been given.
    ///
    /// - Returns: how long the answer is held back.
    package mutating func fail(_ source: LoginSource, at now: UInt64) -> UInt64 {
        guard var record = records[source] else { return Self.longestDelay }
        if now > record.last + Self.memory { record.failures = 0 }
        record.last = max(record.last, now)
        // 2^5 times 100 ms is beyond the longest delay.
        let delay = min(Self.longestDelay, Self.firstDelay << UInt64(min(record.failures, 5)))
        record.failures += 1
        records[source] = record
        return delay
    }

    /// An attempt is over: answered, or its client is gone.
    package mutating func end(_ source: LoginSource) {
        guard var record = records[source] else { return }
        record.underWay = max(0, record.underWay - 1)
        records[source] = record.failures == 0 && record.underWay == 0 ? nil : record
    }

    /// How many sources are remembered.
    package var count: Int { records.count }

    private mutating func makeRoom(_ now: UInt64) {
        records = records.filter { $0.value.underWay > 0 || now <= $0.value.last + Self.memory }
        guard records.count >= Self.sourceLimit else { return }
        let idle = records.filter { $0.value.underWay == 0 }
        if let oldest = idle.min(by: { $0.value.last < $1.value.last }) {
            records[oldest.key] = nil
        }
    }
}
