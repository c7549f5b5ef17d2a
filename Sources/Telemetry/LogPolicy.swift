// What is logged and how, while it runs: loggers are values that have been handed to every thread, and
// all that were made with one policy follow it.

package import Logging
import Synchronization

/// A level and a format that can change. Usable from any thread; a record that is being written when
/// they change has the old ones or the new ones.
package final class LogPolicy: Sendable {
    private static let levels = Logger.Level.allCases
    private static let formats = LogFormat.allCases

    /// Positions in the lists above.
    private let levelPosition: Atomic<Int>
    private let formatPosition: Atomic<Int>

    package init(level: Logger.Level, format: LogFormat) {
        levelPosition = Atomic(Self.position(of: level))
        formatPosition = Atomic(Self.position(of: format))
    }

    private static func position(of level: Logger.Level) -> Int {
        levels.firstIndex(of: level) ?? 0
    }

    private static func position(of format: LogFormat) -> Int {
        formats.firstIndex(of: format) ?? 0
    }

    /// Records below it are dropped before their message is built.
    package var level: Logger.Level {
        get { Self.levels[levelPosition.load(ordering: .relaxed)] }
        set { levelPosition.store(Self.position(of: newValue), ordering: .relaxed) }
    }

    /// The shape of a line, see `LineLogHandler`.
    package var format: LogFormat {
        get { Self.formats[formatPosition.load(ordering: .relaxed)] }
        set { formatPosition.store(Self.position(of: newValue), ordering: .relaxed) }
    }
}
