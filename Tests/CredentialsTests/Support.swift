import Credentials
import Glibc
import Identity
import Logging
import Synchronization
import Telemetry
import Testing

/// A directory of a test's own, removed with everything in it.
final class TemporaryDirectory {
    let path: String

    init() {
        var template = Array("/tmp/credentials-test-XXXXXX".utf8CString)
        precondition(mkdtemp(&template) != nil, "mkdtemp failed")
        path = String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    deinit { Self.remove(path) }

    func callAsFunction(_ name: String) -> String { "\(path)/\(name)" }

    /// Writes in place, as `echo -n text > file` does.
    func write(_ text: String, to name: String, mode: mode_t = 0o600) {
        write(Array(text.utf8), to: name, mode: mode)
    }

    func write(_ bytes: [UInt8], to name: String, mode: mode_t = 0o600) {
        let descriptor = open(self(name), O_WRONLY | O_CREAT | O_TRUNC, mode)
        precondition(descriptor >= 0, "cannot write \(name)")
        fchmod(descriptor, mode)
        precondition(Glibc.write(descriptor, bytes, bytes.count) == bytes.count)
        close(descriptor)
    }

    /// Writes beside the file and renames over it.
    func replace(_ name: String, with text: String) {
        write(text, to: name + ".draft")
        precondition(rename(self(name + ".draft"), self(name)) == 0)
    }

    private static func remove(_ path: String) {
        if let stream = opendir(path) {
            while let entry = readdir(stream) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name != "." && name != ".." { remove("\(path)/\(name)") }
            }
            closedir(stream)
        }
        if rmdir(path) != 0 { unlink(path) }
    }
}

/// Collects a store's publications and lets a test wait for one of them.
final class Publications: Sendable {
    struct Publication: Sendable {
        let user: UserIndex
        let snapshot: CredentialSnapshot
        let at: ContinuousClock.Instant
    }

    private let received = Mutex<[Publication]>([])

    func subscribe(to store: CredentialStore) {
        store.subscribe { [self] user, snapshot in
            let publication = Publication(user: user, snapshot: snapshot, at: .now)
            received.withLock { $0.append(publication) }
        }
    }

    var all: [Publication] { received.withLock { $0 } }

    /// The first publication for which `condition` holds; an issue and nil if there is none in time.
    @discardableResult
    func first(
        _ what: String, within limit: Duration = .seconds(10),
        sourceLocation: SourceLocation = #_sourceLocation,
        where condition: (Publication) -> Bool
    ) async -> Publication? {
        let end = ContinuousClock.now + limit
        while true {
            if let found = all.first(where: condition) { return found }
            guard ContinuousClock.now < end else { break }
            // Looks again; what is waited for is the publication, not the time.
            try? await Task.sleep(for: .milliseconds(2))
        }
        Issue.record("no publication with \(what) within \(limit)", sourceLocation: sourceLocation)
        return nil
    }

    /// The first publication with this password.
    @discardableResult
    func first(
        password: String, within limit: Duration = .seconds(10),
        sourceLocation: SourceLocation = #_sourceLocation
    ) async -> Publication? {
        let wanted = Secret(password.utf8)
        return await first(
            "password \(password)", within: limit, sourceLocation: sourceLocation
        ) { $0.snapshot.credential?.secret == wanted && $0.snapshot.failure == nil }
    }
}

/// What was logged, as lines.
final class Records: Sendable {
    private let ends: (read: Int32, write: Int32)

    init() {
        var pair: [Int32] = [-1, -1]
        precondition(pipe(&pair) == 0)
        ends = (pair[0], pair[1])
        _ = fcntl(ends.read, F_SETFL, O_NONBLOCK)
        _ = fcntl(ends.write, F_SETFL, O_NONBLOCK)
    }

    deinit {
        close(ends.read)
        close(ends.write)
    }

    var logger: Logger {
        Log.make("credentials", level: .debug, format: .text, descriptor: ends.write)
    }

    /// What has been logged since the last time.
    func lines() -> [String] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let got = read(ends.read, &chunk, chunk.count)
            guard got > 0 else { break }
            bytes += chunk[..<got]
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
    }
}

let app = UserIndex(0)

/// A store for one user with a password file that polls rarely, so that what a test sees came
/// through inotify or a request.
func makeStore(
    file: String, pollEvery: Duration = .seconds(3_600), records: Records = Records()
) -> CredentialStore {
    CredentialStore(
        users: [
            CredentialStore.User(
                index: app, name: "app", userName: "app-upstream", source: .passwordFile(path: file)
            )
        ], pollEvery: pollEvery, logger: records.logger)
}
