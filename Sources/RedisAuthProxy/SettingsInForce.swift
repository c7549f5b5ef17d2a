import Configuration
import Synchronization

/// The settings that a running proxy goes by, for threads other than the one that changes them.
final class SettingsInForce: Sendable {
    private let value: Mutex<Settings>

    init(_ settings: Settings) { value = Mutex(settings) }

    var settings: Settings { value.withLock { $0 } }

    func set(_ settings: Settings) { value.withLock { $0 = settings } }
}
