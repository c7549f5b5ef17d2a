// How every room gets its logger: as a value, handed down from the composition root.
//
// swift-log's own bootstrap is process-global, works once, and makes two tests in one process fight
// over it; it is not used. A Logger made here carries its level and its format with it, or a policy
// that has them and may change.

package import Logging

/// How a log record is written: for people, or for machines.
package enum LogFormat: String, CaseIterable, Sendable {
    case text
    case json
}

/// Makes loggers that write one line per record to standard error.
package enum Log {
    /// A logger for one room or one thing.
    ///
    /// - Parameters:
    ///   - label: who speaks: a room's name in lower case, such as `credentials`.
    ///   - level: records below it are dropped before their message is built.
    ///   - format: the shape of a line, see `LineLogHandler`.
    ///   - descriptor: where lines go; borrowed, never closed. Standard error unless a test looks.
    ///   - recent: keeps warnings and errors besides.
    package static func make(
        _ label: String,
        level: Logger.Level,
        format: LogFormat,
        descriptor: Int32 = 2,
        recent: RecentRecords? = nil
    ) -> Logger {
        make(
            label, LogPolicy(level: level, format: format), descriptor: descriptor, recent: recent)
    }

    /// A logger whose level and format are those of `policy` at any moment.
    package static func make(
        _ label: String, _ policy: LogPolicy, descriptor: Int32 = 2,
        recent: RecentRecords? = nil
    ) -> Logger {
        Logger(label: label) { label in
            LineLogHandler(
                label: label, policy: policy, descriptor: descriptor, recent: recent)
        }
    }
}
