// Tokens in snapshots: signed ahead of need, and gone when they are no good.

import AWS
import Credentials
import Glibc
import Identity
import Testing

private func source(renewAfter: Duration = .seconds(28_800)) -> IAMSource {
    var source = IAMSource(cacheName: "My-Cache")
    source.region = "us-east-1"
    source.life.renewAfter = renewAfter
    return source
}

/// A store for one user, whose AWS settings are these variables alone.
private func makeStore(
    _ variables: [String: String], _ source: IAMSource = source(), records: Records = Records()
) throws -> CredentialStore {
    let nothing = [
        "HOME": "/nonexistent", "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
    ]
    let cancellation = Cancellation()
    let client = AWSClient(
        try AWSSettings(AWSEnvironment(nothing.merging(variables) { $1 })),
        cancellation: cancellation)
    let aws = AWSCredentials(client, cancellation: cancellation, for: [.iam(source)])
    return CredentialStore(
        users: [
            CredentialStore.User(index: app, name: "app", userName: "app", source: .iam(source))
        ], aws: aws, pollEvery: .seconds(3600), logger: records.logger)
}

private let keys = ["AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hunter2"]

@Suite(.timeLimit(.minutes(1))) struct IAMCredentialTests {
    private let publications = Publications()

    @Test func `a token comes with its kind, its end and its signer`() async throws {
        let records = Records()
        let store = try makeStore(keys, records: records)
        publications.subscribe(to: store)
        try store.start()
        defer { store.stop() }
        #expect(store.snapshot(of: app).version >= 1)
        let first = await publications.first("a token") { $0.snapshot.credential != nil }
        let credential = try #require(first?.snapshot.credential)
        #expect(credential.userName == "app")
        #expect(credential.kind == .iamToken(LoginLife()))
        #expect(
            credential.secret.withBytes { String(decoding: $0, as: UTF8.self) }
                .hasPrefix("my-cache/?Action=connect&User=app&"))
        #expect(credential.origin?.contains("AKIDEXAMPLE from the environment") == true)
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let end = try #require(credential.usableUntil)
        let left = Int64(end / 1_000_000_000) - Int64(now.tv_sec)
        #expect((800...900).contains(left))
        let lines = records.lines().joined()
        #expect(!lines.contains("hunter2") && !lines.contains("X-Amz-Signature"))
    }

    @Test func `where connections live shortly a token is replaced each second`() async throws {
        let store = try makeStore(keys, source(renewAfter: .seconds(2)))
        publications.subscribe(to: store)
        try store.start()
        defer { store.stop() }
        let first = await publications.first("a token") { $0.snapshot.credential != nil }
        let second = await publications.first("another token") {
            $0.snapshot.credential != nil
                && $0.snapshot.credential?.secret != first?.snapshot.credential?.secret
        }
        #expect(second?.snapshot.failure == nil)
    }

    @Test func `a refresh publishes the same token while it is young`() async throws {
        let store = try makeStore(keys)
        publications.subscribe(to: store)
        try store.start()
        defer { store.stop() }
        let first = await publications.first("a token") { $0.snapshot.credential != nil }
        let version = try #require(first?.snapshot.version)
        store.requestRefresh(of: app)
        let second = await publications.first("a higher version") {
            $0.snapshot.version > version
        }
        #expect(second?.snapshot.credential == first?.snapshot.credential)
    }

    @Test func `without AWS credentials there is a reason and no token`() async throws {
        let store = try makeStore([:])
        publications.subscribe(to: store)
        try store.start()
        defer { store.stop() }
        let failed = await publications.first("the failure") {
            $0.snapshot.failure?.contains("no AWS credentials") == true
        }
        #expect(failed?.snapshot.credential == nil)
    }

    @Test func `half of a key is named`() async throws {
        let store = try makeStore(["AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"])
        publications.subscribe(to: store)
        try store.start()
        defer { store.stop() }
        await publications.first("the failure") {
            $0.snapshot.failure?.contains("AWS_SECRET_ACCESS_KEY") == true
        }
    }

    @Test func `waiting for AWS ends when every user has an answer`() throws {
        let store = try makeStore(keys)
        try store.start()
        defer { store.stop() }
        store.waitForAWS(atMost: .seconds(20))
        #expect(store.snapshot(of: app).version >= 2)
    }
}
