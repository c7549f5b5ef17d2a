// What lasts is said once and then at most every `interval`, with the number of times that it was
// not said.

import Logging

/// Holds back lines that say the same. A value of whoever logs; used on one thread.
struct RepeatedLines {
    /// Pause between two lines that say the same.
    private static let interval: UInt64 = 10_000_000_000
    /// Keys that are told apart. Reached: what has been quiet for longest is forgotten, and said
    /// again when it comes again.
    private static let keyLimit = 256

    private struct Repetition {
        var text: String
        var last: UInt64
        var suppressed: Int
    }

    private var repetitions: [String: Repetition] = [:]

    /// Writes a line, unless the same was written under this key a moment ago.
    ///
    /// - Parameter now: nanoseconds of a monotonic clock.
    mutating func say(
        _ level: Logger.Level,
        _ text: String,
        key: String,
        _ metadata: @autoclosure () -> Logger.Metadata,
        to logger: Logger,
        at now: UInt64
    ) {
        let earlier = repetitions[key]
        if var repetition = earlier, repetition.text == text, now < repetition.last + Self.interval
        {
            repetition.suppressed += 1
            repetitions[key] = repetition
            return
        }
        if earlier == nil, repetitions.count >= Self.keyLimit { forgetOldest() }
        let suppressed = earlier.map { $0.text == text ? $0.suppressed : 0 } ?? 0
        repetitions[key] = Repetition(text: text, last: now, suppressed: 0)
        var metadata = metadata()
        if suppressed > 0 { metadata["repeated"] = "\(suppressed)" }
        logger.log(level: level, "\(text)", metadata: metadata)
    }

    /// What was said under this key is over: it will be said at once when it comes again.
    ///
    /// - Returns: whether anything was said.
    mutating func end(_ key: String) -> Bool {
        repetitions.removeValue(forKey: key) != nil
    }

    private mutating func forgetOldest() {
        guard let oldest = repetitions.min(by: { $0.value.last < $1.value.last }) else { return }
        repetitions.removeValue(forKey: oldest.key)
    }
}
