import Admin
import Foundation
import Logging
import Telemetry
import Testing
import Transport

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

@Suite(.serialized) struct `The admin listener` {
    private func listener(_ endpoint: Endpoint) throws -> AdminListener {
        let report = try report()
        return AdminListener(
            endpoint, observer: Observer(records: RecentRecords(), version: "1") { report },
            logger: quiet)
    }

    @Test func `says what is in its way, and leaves nothing behind`() throws {
        let first = try listener(.tcp(host: "127.0.0.1", port: 0))
        let endpoint = try first.start()
        defer { first.stop() }
        guard case .tcp(_, let port) = endpoint else {
            Issue.record("\(endpoint)")
            return
        }
        #expect(port != 0)
        let second = try listener(endpoint)
        let failure = #expect(throws: AdminFailure.self) { try second.start() }
        #expect(failure?.description.contains("another process listens there") == true)
    }

    @Test func `on a Unix socket is for its own user alone, and takes the file away`() throws {
        let path = "/tmp/admin-tests-\(getpid()).sock"
        let listener = try listener(.unix(path: path))
        _ = try listener.start()
        var status = stat()
        #expect(lstat(path, &status) == 0)
        #expect(status.st_mode & 0o777 == 0o600)
        listener.stop()
        #expect(lstat(path, &status) != 0)
    }

    @Test func `leaves the file of another that listens there in its place`() throws {
        let path = "/tmp/admin-tests-\(getpid())-place.sock"
        let first = try listener(.unix(path: path))
        _ = try first.start()
        unlink(path)
        let second = try listener(.unix(path: path))
        _ = try second.start()
        let file = try #require(SocketFile(at: path))
        first.stop()
        #expect(file.isThere)
        second.stop()
        #expect(!file.isThere)
    }
}
