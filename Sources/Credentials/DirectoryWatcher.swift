// inotify on the directories that password files live in.
//
// Which directory an event came from is not told: an event makes every file due, and a reading that
// finds nothing new publishes nothing. The limit of readings per user is what bounds the cost.

import AWS
import Glibc

/// Watches the directory of each path, and the directory that the path leads to when it is a link.
/// Owns its descriptor; used by one thread.
struct DirectoryWatcher: ~Copyable {
    /// For poll(2); -1 when inotify is not available.
    let descriptor: Int32
    /// Why there is no inotify; empty if there is.
    let failure: String
    private let paths: [String]
    private var watches: Set<Int32> = []

    /// What a new content can look like: written in place and closed, renamed over or linked in,
    /// permissions given back, gone; and the directory itself gone or moved.
    private static let mask = UInt32(
        IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB
            | IN_DELETE_SELF | IN_MOVE_SELF)

    init(paths: [String]) {
        self.paths = paths
        descriptor =
            paths.isEmpty
            ? -1 : inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK))
        failure = descriptor < 0 && !paths.isEmpty ? errorText(errno) : ""
        refresh()
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    var isUsable: Bool { descriptor >= 0 }

    /// Watches what the paths lead to now, and nothing else: a directory may have come, gone or
    /// been replaced. Adding a watch that exists gives its number again (inotify_add_watch(2)).
    mutating func refresh() {
        guard isUsable else { return }
        var current: Set<Int32> = []
        for path in paths {
            for directory in Self.directories(of: path) {
                let watch = inotify_add_watch(descriptor, directory, Self.mask)
                if watch >= 0 { current.insert(watch) }
            }
        }
        for stale in watches.subtracting(current) { inotify_rm_watch(descriptor, stale) }
        watches = current
    }

    /// Empties the queue; false if it was empty. Follows links and directories anew, since they
    /// are what may have changed.
    mutating func drain() -> Bool {
        var isNews = false
        // Room for many events; NAME_MAX + 1 plus the header is what one needs.
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            while true {
                let got = read(descriptor, buffer.baseAddress, buffer.count)
                if got > 0 {
                    isNews = true
                } else if got == 0 || errno != EINTR {
                    break
                }
            }
        }
        if isNews { refresh() }
        return isNews
    }

    private static func directories(of path: String) -> [String] {
        var directories = [directory(of: path)]
        if let resolved = realpath(path, nil) {
            directories.append(directory(of: String(cString: resolved)))
            free(resolved)
        }
        return directories
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}
