import Glibc
import Testing
import Transport

@Suite struct ListeningSocketTests {
    @Test("Port 0 gets a free port, which is reported")
    func reportsPort() throws {
        let listener = try loopbackListener()
        let port = try #require(listener.address.port)
        #expect(port != 0)
        #expect(listener.address.description == "127.0.0.1:\(port)")
        let client = try connected(to: listener.address)
        Socket.close(client)
    }

    @Test("A name with several addresses listens on each, with one port")
    func bindsEveryAddress() throws {
        guard case .success(let addresses) = Resolver.lookUp(host: "localhost", port: 0) else {
            Issue.record("localhost has no address")
            return
        }
        let sockets = try ListeningSocket.bind(to: .tcp(host: "localhost", port: 0))
        #expect(!sockets.isEmpty)
        #expect(sockets.count <= addresses.count)
        #expect(Set(sockets.map(\.address.port)).count == 1)
        for socket in sockets {
            #expect(socket.address.isLoopback)
            Socket.close(try connected(to: socket.address))
        }
    }

    @Test("An IPv6 listener leaves the same IPv4 port alone")
    func separatesFamilies() throws {
        let any = try ListeningSocket.bind(to: .tcp(host: "::", port: 0))
        let port = try #require(any.first?.address.port)
        // Succeeds unless some other process happens to hold the port on IPv4.
        let v4 = try ListeningSocket.bind(to: .tcp(host: "127.0.0.1", port: port))
        #expect(v4.count == 1)
    }

    @Test("A port that is taken is refused with what to do")
    func refusesTakenPort() throws {
        let first = try loopbackListener()
        let port = try #require(first.address.port)
        let error = try #require(throws: ListenError.self) {
            try ListeningSocket.bind(to: .tcp(host: "127.0.0.1", port: port))
        }
        #expect(
            error.description
                == "cannot listen on 127.0.0.1:\(port): bind: Address already in use (another "
                + "process listens there: stop it or choose another port)")
    }

    @Test("An address of no interface is refused")
    func refusesForeignAddress() throws {
        // 192.0.2.0/24 is for documentation and on no machine (RFC 5737).
        let error = try #require(throws: ListenError.self) {
            try ListeningSocket.bind(to: .tcp(host: "192.0.2.1", port: 0))
        }
        #expect(error.reason.contains("no interface of this machine has that address"))
    }

    @Test("A name that does not exist is refused with the resolver's words")
    func refusesUnknownName() throws {
        let error = try #require(throws: ListenError.self) {
            try ListeningSocket.bind(to: .tcp(host: "name.invalid", port: 0))
        }
        #expect(error.reason.hasPrefix("cannot resolve \"name.invalid\": "))
    }

    @Test("Closing frees the port, and may be done twice")
    func closes() throws {
        let listener = try loopbackListener()
        let address = listener.address
        listener.close()
        listener.close()
        #expect(throws: SystemError(call: "connect", number: ECONNREFUSED)) {
            try connected(to: address)
        }
    }
}

@Suite struct UnixListeningSocketTests {
    private let directory: TemporaryDirectory
    private let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.path + "/app.sock"
    }

    private func bind(_ options: ListenOptions = ListenOptions()) throws -> ListeningSocket {
        let sockets = try ListeningSocket.bind(to: .unix(path: path), options: options)
        return try #require(sockets.first)
    }

    private func fileStatus(_ path: String) -> stat? {
        var status = stat()
        return lstat(path, &status) == 0 ? status : nil
    }

    /// A socket file whose maker is gone, as after kill -9.
    private func leaveStaleSocket() throws {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        let address = try #require(SocketAddress(unixPath: path))
        var raw = sockaddr_un()
        raw.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &raw.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: raw) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        #expect(result == 0)
        Socket.close(descriptor)
        #expect(throws: SystemError(call: "connect", number: ECONNREFUSED)) {
            try connected(to: address)
        }
    }

    @Test(
        "The file has the mode that was asked for, whatever the umask", arguments: [0o600, 0o666])
    func setsMode(mode: UInt32) throws {
        let listener = try bind(ListenOptions(unixMode: mode))
        let status = try #require(fileStatus(path))
        #expect(status.st_mode & S_IFMT == S_IFSOCK)
        #expect(status.st_mode & 0o7777 == mode)
        Socket.close(try connected(to: listener.address))
    }

    @Test("The file has the owner and group that were asked for")
    func setsOwner() throws {
        let isRoot = geteuid() == 0
        // Everybody may give a file to themselves; root to anybody.
        let user = isRoot ? 12_345 : geteuid()
        let group = isRoot ? 23_456 : getegid()
        let listener = try bind(ListenOptions(unixUser: user, unixGroup: group))
        let status = try #require(fileStatus(path))
        #expect(status.st_uid == user && status.st_gid == group)
        listener.close()
    }

    @Test("A stale socket is replaced")
    func replacesStale() throws {
        try leaveStaleSocket()
        let listener = try bind()
        Socket.close(try connected(to: listener.address))
        #expect(try entries() == ["app.sock"])
    }

    @Test("A live socket is refused and goes on serving")
    func refusesLive() throws {
        let first = try bind()
        let error = try #require(throws: ListenError.self) { try bind() }
        #expect(
            error.description
                == "cannot listen on unix:\(path): another process listens there: stop it or "
                + "choose another path")
        Socket.close(try connected(to: first.address))
    }

    @Test("A live socket with a full backlog is refused too")
    func refusesLiveAndBusy() throws {
        let first = try bind(ListenOptions(backlog: 0))
        var clients: [Int32] = []
        defer { for client in clients { Socket.close(client) } }
        var isFull = false
        while !isFull && clients.count < 16 {
            switch Socket.connect(to: first.address) {
            case .connected(let client), .inProgress(let client): clients.append(client)
            case .failed(let error):
                #expect(error.number == EAGAIN)
                isFull = true
            }
        }
        #expect(isFull)
        let error = try #require(throws: ListenError.self) { try bind() }
        #expect(error.reason.contains("another process listens there, with a full backlog"))
    }

    @Test("A file that is no socket is refused and left alone")
    func refusesFile() throws {
        let file = try #require(fopen(path, "w"))
        fputs("precious", file)
        fclose(file)
        let error = try #require(throws: ListenError.self) { try bind() }
        #expect(error.reason.contains("a file that is not a socket is there"))
        #expect(try #require(fileStatus(path)).st_size == 8)
    }

    @Test("A symbolic link is refused and left alone, even to a stale socket")
    func refusesLink() throws {
        #expect(symlink("/nowhere", path) == 0)
        let error = try #require(throws: ListenError.self) { try bind() }
        #expect(error.reason.contains("a file that is not a socket is there"))
        #expect(try #require(fileStatus(path)).st_mode & S_IFMT == S_IFLNK)
    }

    @Test("A directory that does not exist is refused")
    func refusesMissingDirectory() throws {
        let error = try #require(throws: ListenError.self) {
            try ListeningSocket.bind(to: .unix(path: directory.path + "/missing/app.sock"))
        }
        #expect(error.reason == "bind: No such file or directory")
    }

    @Test("A path that is too long is refused before anything is made")
    func refusesLongPath() throws {
        let long = directory.path + "/" + String(repeating: "p", count: 107)
        let error = try #require(throws: ListenError.self) {
            try ListeningSocket.bind(to: .unix(path: long))
        }
        #expect(error.reason.contains("a Unix socket's path has 1 to 107 bytes"))
        #expect(try entries().isEmpty)
    }

    @Test("A longest path can be listened on and connected to")
    func bindsLongestPath() throws {
        let rest = 107 - directory.path.utf8.count - 1
        let longest = directory.path + "/" + String(repeating: "p", count: rest)
        let listener = try #require(try ListeningSocket.bind(to: .unix(path: longest)).first)
        Socket.close(try connected(to: listener.address))
        listener.close()
        #expect(try entries().isEmpty)
    }

    @Test("Closing removes the file")
    func removesFile() throws {
        let listener = try bind()
        listener.close()
        #expect(fileStatus(path) == nil)
    }

    @Test("Closing leaves a file that somebody else put there")
    func leavesForeignFile() throws {
        let listener = try bind()
        unlink(path)
        try leaveStaleSocket()
        listener.close()
        #expect(fileStatus(path) != nil)
    }

    @Test("What cannot be given to another user is refused and leaves no file")
    func refusesForeignOwner() async {
        await #expect(processExitsWith: .success) {
            let directory = try TemporaryDirectory()
            // Root may give files away, so go on as somebody who may not.
            if geteuid() == 0 {
                chmod(directory.path, 0o777)
                #expect(seteuid(65_534) == 0)
            }
            defer { _ = seteuid(0) }
            let path = directory.path + "/app.sock"
            let error = try #require(throws: ListenError.self) {
                try ListeningSocket.bind(
                    to: .unix(path: path), options: ListenOptions(unixUser: 1))
            }
            #expect(error.reason.hasPrefix("chown: Operation not permitted"))
            #expect(access(path, F_OK) != 0)
        }
    }

    private func entries() throws -> [String] {
        guard let handle = opendir(directory.path) else {
            throw SystemError(call: "opendir", number: errno)
        }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }
}
