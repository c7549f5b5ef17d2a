// Files that change under the store, and what it publishes.

import Credentials
import Glibc
import Identity
import Testing

@Suite(.timeLimit(.minutes(1))) struct CredentialStoreTests {
    private let directory = TemporaryDirectory()
    private let publications = Publications()

    private func started(
        _ file: String, pollEvery: Duration = .seconds(3_600), records: Records = Records()
    ) throws -> CredentialStore {
        let store = makeStore(file: file, pollEvery: pollEvery, records: records)
        publications.subscribe(to: store)
        try store.start()
        return store
    }

    @Test func `the first snapshot is there when start returns`() throws {
        directory.write("one\n", to: "password")
        let store = makeStore(file: directory("password"))
        #expect(store.snapshot(of: app).version == 0)
        #expect(store.snapshot(of: app).credential == nil)
        try store.start()
        defer { store.stop() }
        let snapshot = store.snapshot(of: app)
        #expect(snapshot.version == 1)
        #expect(snapshot.failure == nil)
        #expect(
            snapshot.credential
                == Credential(userName: "app-upstream", secret: Secret("one".utf8)))
    }

    @Test func `a subscriber gets the snapshot that was there before it`() async throws {
        directory.write("one", to: "password")
        let store = makeStore(file: directory("password"))
        try store.start()
        defer { store.stop() }
        publications.subscribe(to: store)
        #expect(await publications.first(password: "one")?.snapshot.version == 1)
    }

    @Test func `a file renamed over the old one is read`() async throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        await publications.first(password: "one")
        for number in 2...4 {
            directory.replace("password", with: "password \(number)")
            let seen = await publications.first(password: "password \(number)")
            #expect(seen?.snapshot.version == UInt64(number))
        }
    }

    @Test func `a file written in place is read`() async throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        await publications.first(password: "one")
        directory.write("two", to: "password")
        await publications.first(password: "two")
    }

    @Test func `the swap of a Kubernetes volume is seen`() async throws {
        // password -> ..data/password, ..data -> ..first, as kubelet's atomic writer lays it out.
        mkdir(directory("..first"), 0o700)
        directory.write("one", to: "..first/password")
        symlink("..first", directory("..data"))
        symlink("..data/password", directory("password"))
        let store = try started(directory("password"))
        defer { store.stop() }
        await publications.first(password: "one")

        mkdir(directory("..second"), 0o700)
        directory.write("two", to: "..second/password")
        symlink("..second", directory("..data_tmp"))
        rename(directory("..data_tmp"), directory("..data"))
        unlink(directory("..first/password"))
        rmdir(directory("..first"))
        await publications.first(password: "two")
    }

    @Test func `a link's target in another directory is watched too`() async throws {
        let elsewhere = TemporaryDirectory()
        elsewhere.write("one", to: "real")
        symlink(elsewhere("real"), directory("password"))
        let store = try started(directory("password"))
        defer { store.stop() }
        await publications.first(password: "one")
        elsewhere.replace("real", with: "two")
        await publications.first(password: "two")
    }

    @Test func `a deleted file is a failure that keeps the last good credential`() async throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        await publications.first(password: "one")
        unlink(directory("password"))
        let failed = await publications.first("a failure") { $0.snapshot.failure != nil }
        #expect(failed?.snapshot.version == 2)
        #expect(failed?.snapshot.credential?.secret == Secret("one".utf8))
        #expect(failed?.snapshot.failure?.contains("No such file or directory") == true)

        directory.write("two", to: "password")
        await publications.first(password: "two")
    }

    @Test func `a file that becomes empty keeps the last good credential`() async throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        directory.replace("password", with: "")
        let failed = await publications.first("a failure") { $0.snapshot.failure != nil }
        #expect(failed?.snapshot.credential?.secret == Secret("one".utf8))
    }

    @Test func `a file that is not there yet is read when it comes`() async throws {
        let store = try started(directory("password"))
        defer { store.stop() }
        #expect(store.snapshot(of: app).version == 1)
        #expect(store.snapshot(of: app).credential == nil)
        #expect(store.snapshot(of: app).failure != nil)
        directory.replace("password", with: "late")
        await publications.first(password: "late")
    }

    @Test func `polling finds what comes in a directory that was not there`() async throws {
        let store = try started(directory("mount/password"), pollEvery: .milliseconds(20))
        defer { store.stop() }
        mkdir(directory("mount"), 0o700)
        directory.write("mounted", to: "mount/password")
        await publications.first(password: "mounted")
        // Another directory under the same name, as a mount over it would be.
        rename(directory("mount"), directory("old"))
        mkdir(directory("mount"), 0o700)
        directory.write("mounted again", to: "mount/password")
        await publications.first(password: "mounted again")
    }

    @Test func `a change that leaves the content as it was is not published`() async throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        await publications.first(password: "one")
        directory.replace("password", with: "one")
        directory.write("noise", to: "neighbour")
        directory.replace("password", with: "two")
        let two = await publications.first(password: "two")
        #expect(two?.snapshot.version == 2)
        #expect(publications.all.count == 2)
    }

    @Test func `a refresh publishes a higher version even when nothing changed`() async throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        await publications.first(password: "one")
        for version in UInt64(2)...4 {
            store.requestRefresh(of: app)
            let seen = await publications.first("version \(version)") {
                $0.snapshot.version == version
            }
            #expect(seen?.snapshot.credential?.secret == Secret("one".utf8))
        }
    }

    @Test func `a refresh of a file that stays unreadable publishes the failure again`()
        async throws
    {
        let store = try started(directory("password"))
        defer { store.stop() }
        store.requestRefresh(of: app)
        let seen = await publications.first("version 2") { $0.snapshot.version == 2 }
        #expect(seen?.snapshot.failure != nil)
    }

    @Test func `refreshes are coalesced and readings are 100 ms apart`() async throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        await publications.first(password: "one")
        let start = ContinuousClock.now
        // More requests than could each have a reading, from several threads.
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask { for _ in 0..<10_000 { store.requestRefresh(of: app) } }
            }
        }
        let lastRequest = ContinuousClock.now
        store.requestRefresh(of: app)
        await publications.first("a publication after the last request") { $0.at >= lastRequest }
        let all = publications.all
        let elapsed = all.last!.at - start
        #expect(all.count <= 3 + Int(elapsed / CredentialStore.readInterval))
        // The first pair is the reading in start and its delivery to the subscriber.
        for (earlier, later) in zip(all.dropFirst(), all.dropFirst(2)) {
            #expect(later.at - earlier.at > CredentialStore.readInterval * 0.5)
        }
    }

    @Test func `versions grow by one and are delivered in order`() async throws {
        directory.write("0", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        for number in 1...5 {
            directory.replace("password", with: "\(number)")
            store.requestRefresh(of: app)
            await publications.first(password: "\(number)")
        }
        let versions = publications.all.map(\.snapshot.version)
        #expect(versions == Array(1...UInt64(versions.count)))
        #expect(store.snapshot(of: app).version == versions.last)
    }

    @Test func `each user has versions of its own`() async throws {
        directory.write("one", to: "a")
        directory.write("one", to: "b")
        let users = ["a", "b"].enumerated().map { position, name in
            CredentialStore.User(
                index: UserIndex(position), name: name, userName: name,
                source: .passwordFile(path: directory(name)))
        }
        let store = CredentialStore(
            users: users, pollEvery: .seconds(3_600), logger: Records().logger)
        publications.subscribe(to: store)
        try store.start()
        defer { store.stop() }
        store.requestRefresh(of: UserIndex(1))
        await publications.first("b's second version") {
            $0.user == UserIndex(1) && $0.snapshot.version == 2
        }
        #expect(store.snapshot(of: UserIndex(0)).version == 1)
    }

    @Test func `a password from the environment is published and refreshed`() async throws {
        setenv("RAP_TEST_STORE", "from the environment", 1)
        let environment = PasswordEnvironment.take(["RAP_TEST_STORE"])
        let user = CredentialStore.User(
            index: app, name: "app", userName: "app",
            source: .passwordEnvironment(variable: "RAP_TEST_STORE"))
        let store = CredentialStore(
            users: [user], environment: environment, logger: Records().logger)
        publications.subscribe(to: store)
        try store.start()
        defer { store.stop() }
        await publications.first(password: "from the environment")
        store.requestRefresh(of: app)
        await publications.first("version 2") { $0.snapshot.version == 2 }
    }

    @Test func `a variable that was not set is a failure with its remedy`() throws {
        let user = CredentialStore.User(
            index: app, name: "app", userName: "app",
            source: .passwordEnvironment(variable: "RAP_TEST_MISSING"))
        let store = CredentialStore(users: [user], logger: Records().logger)
        try store.start()
        defer { store.stop() }
        #expect(
            store.snapshot(of: app).failure
                == "environment variable RAP_TEST_MISSING is not set or is empty:"
                + " set it to the password and restart")
    }

    @Test func `a file that others can read draws one warning`() async throws {
        let records = Records()
        directory.write("one", to: "password", mode: 0o644)
        let store = try started(directory("password"), records: records)
        defer { store.stop() }
        store.requestRefresh(of: app)
        await publications.first("version 2") { $0.snapshot.version == 2 }
        let warnings = records.lines().filter { $0.contains(" warning ") }
        #expect(warnings.count == 1)
        #expect(warnings.first?.contains("readable by every user of this machine") == true)
        #expect(warnings.first?.contains("mode=0644") == true)
    }

    @Test func `a file that its group can read draws no warning`() throws {
        let records = Records()
        directory.write("one", to: "password", mode: 0o640)
        let store = try started(directory("password"), records: records)
        store.stop()
        #expect(!records.lines().contains { $0.contains(" warning ") })
    }

    @Test func `the log tells failure and recovery once each, and no password`() async throws {
        let records = Records()
        directory.write("hunter2", to: "password")
        let store = try started(directory("password"), records: records)
        defer { store.stop() }
        unlink(directory("password"))
        await publications.first("a failure") { $0.snapshot.failure != nil }
        store.requestRefresh(of: app)
        let again = await publications.first("the failure again") { $0.snapshot.version == 3 }
        #expect(again?.snapshot.failure != nil)
        directory.replace("password", with: "hunter2")
        await publications.first("recovery") {
            $0.snapshot.version > 3 && $0.snapshot.failure == nil
        }
        let lines = records.lines()
        // A reading may meet the file while it is being removed, which is a reason of its own.
        let reasons = lines.filter { $0.contains("the last good one stays in use") }.map { line in
            line.split(separator: "reason=").last?.split(separator: " source=").first ?? ""
        }
        #expect(!reasons.isEmpty && reasons.allSatisfy { $0.contains("password") })
        #expect(Set(reasons).count == reasons.count, "\(reasons)")
        #expect(lines.filter { $0.contains("credential can be read again") }.count == 1)
        #expect(!lines.joined().contains("hunter2"))
    }

    @Test func `nobody is called after stop`() async throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        await publications.first(password: "one")
        store.requestRefresh(of: app)
        store.stop()
        let count = publications.all.count
        store.requestRefresh(of: app)
        directory.replace("password", with: "two")
        #expect(publications.all.count == count)
        store.stop()
    }

    @Test func `a user that is not in the store has nothing`() throws {
        directory.write("one", to: "password")
        let store = try started(directory("password"))
        defer { store.stop() }
        let stranger = UserIndex(7)
        store.requestRefresh(of: stranger)
        #expect(store.snapshot(of: stranger).version == 0)
        #expect(store.snapshot(of: stranger).credential == nil)
    }
}
