// What a service manager says to the process that it starts, in the environment: sd_listen_fds(3),
// sd_notify(3), sd_watchdog_enabled(3).
//
//     LISTEN_PID LISTEN_FDS LISTEN_FDNAMES    sockets that listen already: descriptors 3, 4, …
//     NOTIFY_SOCKET                           where it wants to be told
//     WATCHDOG_PID WATCHDOG_USEC              how often it wants a sign of life
//
// Read once, before there is a second thread, and removed: a child of ours is not who is meant.

import Glibc

/// What was found in the environment.
package struct ServiceManager: Sendable {
    /// The first descriptor that is passed (SD_LISTEN_FDS_START).
    package static let firstDescriptor: Int32 = 3
    private static let mostDescriptors = 4096
    private static let variables = [
        "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "NOTIFY_SOCKET",
        "WATCHDOG_PID", "WATCHDOG_USEC",
    ]

    /// The names of the sockets that were passed, `unknown` for one without.
    package var socketNames: [String] = []
    /// nil: nobody wants to be told.
    package var notifyPath: String?
    /// Longest time between two signs of life, in microseconds; nil: none are wanted.
    package var watchdogMicroseconds: UInt64?

    /// Nobody manages this process.
    package init() {}

    /// - Parameters:
    ///   - variable: a variable of the environment.
    ///   - processID: ours: what is meant for another process is not for us.
    /// - Throws: `InheritanceError` when what is said about sockets makes no sense.
    package init(
        _ variable: (String) -> String?, processID: Int32
    ) throws(InheritanceError) {
        notifyPath = variable("NOTIFY_SOCKET").flatMap { $0.isEmpty ? nil : $0 }
        if let text = variable("WATCHDOG_USEC"), let interval = UInt64(text), interval > 0 {
            let owner = variable("WATCHDOG_PID")
            if owner == nil || owner == "\(processID)" { watchdogMicroseconds = interval }
        }
        guard variable("LISTEN_PID") == "\(processID)", let text = variable("LISTEN_FDS") else {
            return
        }
        guard let count = Int(text), (0...Self.mostDescriptors).contains(count) else {
            throw InheritanceError(
                "LISTEN_FDS: wanted how many sockets were passed, 0 to \(Self.mostDescriptors), got"
                    + " '\(text)'")
        }
        var names: [Substring] = []
        if let text = variable("LISTEN_FDNAMES") {
            names = text.split(separator: ":", omittingEmptySubsequences: false)
            guard names.count == count || (text.isEmpty && count == 0) else {
                throw InheritanceError(
                    "LISTEN_FDNAMES: wanted \(count) names, as LISTEN_FDS says, got \(names.count)")
            }
        }
        socketNames = (0..<count).map { $0 < names.count ? String(names[$0]) : "unknown" }
    }

    /// Reads the environment and removes the variables from it. Before any other thread exists.
    package static func take() throws(InheritanceError) -> ServiceManager {
        let manager = try ServiceManager(
            { name in getenv(name).map { String(cString: $0) } }, processID: getpid())
        for name in variables { unsetenv(name) }
        for index in manager.socketNames.indices {
            // One that is not open is noticed when it is taken.
            _ = fcntl(firstDescriptor + Int32(index), F_SETFD, FD_CLOEXEC)
        }
        return manager
    }

    /// The sockets that were passed; nil if there are none. Once.
    ///
    /// - Throws: `InheritanceError` when one of them is not what a listener can use.
    package func takeSockets() throws(InheritanceError) -> InheritedSockets? {
        guard !socketNames.isEmpty else { return nil }
        let sockets = InheritedSockets(from: .manager)
        for (index, name) in socketNames.enumerated() {
            try sockets.add(Self.firstDescriptor + Int32(index), name: name)
        }
        return sockets
    }
}
