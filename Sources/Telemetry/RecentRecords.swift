// The last warnings and errors of the operator's log, for whoever looks at the proxy and not at its log.
//
//     Logger ──► LineLogHandler ──► standard error
//                      └──► RecentRecords: the last `limit` of them, the oldest go

package import Logging
import Synchronization

/// A ring of log records. Usable from any thread.
package final class RecentRecords: Sendable {
    /// One line of the log, as it was written.
    package struct Record: Sendable, Equatable {
        /// Unix time.
        package let seconds: Double
        package let level: Logger.Level
        /// As in the log: bounded, on one line, without control characters.
        package let text: String
    }

    /// Records that are kept.
    package static let limit = 50

    private let records = Mutex<[Record]>([])

    package init() {}

    /// The oldest first.
    package var all: [Record] { records.withLock { $0 } }

    func add(_ record: Record) {
        records.withLock { records in
            if records.count >= Self.limit { records.removeFirst() }
            records.append(record)
        }
    }
}
