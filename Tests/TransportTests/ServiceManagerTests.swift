// What a service manager says, and what it is told.

import Glibc
import Testing
import Transport

@Suite struct `What a service manager says` {
    private func read(_ variables: [String: String]) throws(InheritanceError) -> ServiceManager {
        try ServiceManager({ variables[$0] }, processID: 42)
    }

    @Test func `is nothing where nobody manages the process`() throws {
        let manager = try read([:])
        #expect(manager.socketNames.isEmpty)
        #expect(manager.notifyPath == nil && manager.watchdogMicroseconds == nil)
    }

    @Test func `has names for sockets, or none`() throws {
        let named = try read([
            "LISTEN_PID": "42", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "one:two",
        ])
        #expect(named.socketNames == ["one", "two"])
        let nameless = try read(["LISTEN_PID": "42", "LISTEN_FDS": "2"])
        #expect(nameless.socketNames == ["unknown", "unknown"])
        #expect(try read(["LISTEN_PID": "42"]).socketNames.isEmpty)
    }

    @Test func `for another process is not for this one`() throws {
        let manager = try read([
            "LISTEN_PID": "41", "LISTEN_FDS": "nonsense", "WATCHDOG_PID": "41",
            "WATCHDOG_USEC": "1000",
        ])
        #expect(manager.socketNames.isEmpty && manager.watchdogMicroseconds == nil)
        #expect(try read(["LISTEN_FDS": "1"]).socketNames.isEmpty)
    }

    @Test(arguments: ["", "-1", "two", "99999999999999999999", "5000"])
    func `about sockets must be a number of them`(text: String) {
        #expect(throws: InheritanceError.self) {
            try read(["LISTEN_PID": "42", "LISTEN_FDS": text])
        }
    }

    @Test(arguments: ["one", "one:two:three", ""])
    func `must have as many names as sockets`(names: String) {
        #expect(throws: InheritanceError.self) {
            try read(["LISTEN_PID": "42", "LISTEN_FDS": "2", "LISTEN_FDNAMES": names])
        }
    }

    @Test func `about signs of life holds for this process, or for whoever it may concern`() throws
    {
        #expect(try read(["WATCHDOG_USEC": "5000"]).watchdogMicroseconds == 5_000)
        let ours = try read(["WATCHDOG_USEC": "5000", "WATCHDOG_PID": "42"])
        #expect(ours.watchdogMicroseconds == 5_000)
        for nonsense in ["0", "-5", "soon", ""] {
            #expect(try read(["WATCHDOG_USEC": nonsense]).watchdogMicroseconds == nil)
        }
    }
}

@Suite struct `A service manager` {
    /// A datagram socket as the manager has one; its address is `name` with NUL or as a path.
    private func listening(at name: String) throws -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = name.hasPrefix("@") ? [0] + Array(name.utf8.dropFirst()) : Array(name.utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let length = socklen_t(2 + bytes.count + (name.hasPrefix("@") ? 0 : 1))
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length)
            }
        }
        try #require(result == 0)
        return descriptor
    }

    private func datagram(_ descriptor: Int32) -> String {
        var buffer = [UInt8](repeating: 0, count: 512)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
    }

    @Test(arguments: ["/tmp/notify-tests-\(getpid())", "@notify-tests-\(getpid())"])
    func `gets one datagram for what is said together`(name: String) throws {
        let descriptor = try listening(at: name)
        defer {
            close(descriptor)
            unlink(name)
        }
        let notifier = try ServiceNotifier(path: name)
        #expect(notifier.send(["READY=1", "STATUS=two\nlines"]) == nil)
        #expect(datagram(descriptor) == "READY=1\nSTATUS=two lines")
        notifier.send(["WATCHDOG=1"])
        #expect(datagram(descriptor) == "WATCHDOG=1")
    }

    @Test func `that is not there is no harm`() throws {
        let notifier = try ServiceNotifier(path: "/nonexistent/notify")
        #expect(notifier.send(["READY=1"])?.number == ENOENT)
    }

    @Test(arguments: [
        "vsock:2:1234", "relative", "", "@", "/" + String(repeating: "x", count: 200),
    ])
    func `with an address that is none cannot be told`(path: String) {
        #expect(throws: SystemError.self) { try ServiceNotifier(path: path) }
    }
}
