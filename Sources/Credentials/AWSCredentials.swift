// AWS for the credential store: one access to it for all users, and what each user needs of it.
//
//   refresher's thread ── provider chain ──► AWS credential, always fresh
//   store's thread ────── signs tokens with it: microseconds, no I/O
//   secrets' threads ──── ask Secrets Manager with it: at most `threads` at a time, queued behind
//
// Nothing that waits for a network runs on the store's thread, so that password files are followed
// while AWS is out of order, and tokens are signed while Secrets Manager is.

package import AWS
import Glibc
package import Identity
import Synchronization

/// This process's AWS credential, and what is made and fetched with it.
package final class AWSCredentials: Sendable {
    /// Secrets that are fetched at the same time.
    static let threads = 4

    let client: AWSClient
    private let chain: ProviderChain
    private let cancellation: Cancellation
    private let refresher = Mutex<CredentialRefresher?>(nil)
    private let knownRegion = Mutex<String?>(nil)
    private let needsRegion: Bool
    private let jobs: Jobs

    /// - Parameter sources: what the users need.
    /// - Throws: when the shared files of AWS cannot be read or have not what was asked for.
    package convenience init(for sources: [CredentialSource]) throws(AWSFailure) {
        let cancellation = Cancellation()
        let client = AWSClient(try AWSSettings(.ofProcess()), cancellation: cancellation)
        self.init(client, cancellation: cancellation, for: sources)
    }

    package init(_ client: AWSClient, cancellation: Cancellation, for sources: [CredentialSource]) {
        self.client = client
        self.cancellation = cancellation
        chain = ProviderChain(client)
        needsRegion = sources.contains { source in
            switch source {
            case .iam(let source): source.region == nil
            case .secretsManager(let source): source.region == nil
            case .passwordFile, .passwordEnvironment: false
            }
        }
        jobs = Jobs(threads: Self.threads)
    }

    /// Starts fetching. `onChange` is called on another thread after each attempt; it must not
    /// block.
    func start(onChange: @escaping @Sendable () -> Void) throws(AWSFailure) {
        let refresher = CredentialRefresher(
            clock: client.clock, cancellation: cancellation, onChange: { _ in onChange() },
            fetch: { [weak self] () throws(AWSFailure) in
                guard let self else { throw AWSFailure(.cancelled, "the proxy is stopping") }
                return try fetchCredential()
            })
        self.refresher.withLock { $0 = refresher }
        try refresher.start()
    }

    private func fetchCredential() throws(AWSFailure) -> AWSCredential {
        if needsRegion, knownRegion.withLock({ $0 == nil }) {
            let region = try chain.region()
            knownRegion.withLock { $0 = region }
        }
        return try chain.fetch()
    }

    /// Ends all threads and waits for them.
    func stop() {
        cancellation.cancel()
        refresher.withLock { $0 }?.stop()
        jobs.stop()
    }

    /// Asks for another AWS credential soon, because what was signed with this one was refused.
    func requestRefresh() { refresher.withLock { $0 }?.requestRefresh() }

    /// The access key that signs now, where it comes from and when it ends; nil if there is none.
    var signer: String? {
        refresher.withLock { $0 }?.state.credential.map { "\($0)" }
    }

    /// The credential that signs, or why there is none, in words for the operator.
    private func credential() throws(Unavailable) -> AWSCredential {
        let state = refresher.withLock { $0 }?.state
        guard let credential = state?.credential else {
            throw Unavailable(
                reason: state?.failure?.reason ?? "AWS credentials are being fetched",
                isFirst: state?.failure == nil)
        }
        return credential
    }

    private func region(_ configured: String?) throws(Unavailable) -> String {
        guard let region = configured ?? knownRegion.withLock({ $0 }) else {
            throw Unavailable(reason: "AWS's region is being looked up", isFirst: true)
        }
        return region
    }

    /// What AWS did not give, in words for the operator.
    struct Unavailable: Error {
        let reason: String
        /// Nothing went wrong: it has not been there yet.
        var isFirst = false
    }
}

// MARK: - Tokens

extension AWSCredentials {
    /// A token that may be sent from now on, and for how long.
    struct Token {
        let secret: Secret
        let usableFor: Duration
        /// Whose key signed it, in words.
        let signer: String
        /// What was signed, when, and with whose key: everything that it can be refused for.
        let origin: String
    }

    /// Signs a token. No I/O.
    func token(_ source: IAMSource, userName: String) throws(Unavailable) -> Token {
        let credential = try credential()
        let target: IAMTokenRequest.Target =
            switch source.service {
            case .elastiCache:
                .elastiCache(name: source.cacheName, isServerless: source.isServerless)
            case .memoryDB: .memoryDB(name: source.cacheName)
            }
        let region = try region(source.region)
        let request: IAMTokenRequest
        do throws(IAMTokenRequest.Unusable) {
            request = try IAMTokenRequest(target: target, user: userName, region: region)
        } catch {
            throw Unavailable(reason: error.description)
        }
        let now = client.clock.now()
        let token = IAMToken(for: request, signedBy: credential, keys: client.keys, at: now)
        let life = token.expiry.since(now)
        // The way to the server, and the server's own clock.
        let margin = min(life / 10, .seconds(10))
        return Token(
            secret: token.secret, usableFor: max(life - margin, .zero),
            signer: "\(credential)",
            origin: "signed for \(request), at \(now.iso8601), with the access key \(credential)")
    }
}

// MARK: - Secrets

extension AWSCredentials {
    /// What one look at a secret found.
    struct Found: Sendable {
        let stage: SecretStage
        let version: SecretVersion
        /// Of the version with AWSCURRENT.
        let currentID: String
    }

    /// Looks at a secret on another thread; `done` is called there, unless we are stopping.
    ///
    /// - Parameters:
    ///   - refused: what the server did not accept. If AWSCURRENT is no other than it was then,
    ///     the next stage is taken: AWSCURRENT, AWSPENDING, AWSPREVIOUS, and from the first again.
    func fetch(
        _ source: SecretsManagerSource, refused: Found?,
        done: @escaping @Sendable (Result<Found, Unavailable>) -> Void
    ) {
        jobs.submit { [self] in
            let result: Result<Found, Unavailable>
            do throws(Unavailable) {
                result = .success(try look(at: source, refused: refused))
            } catch {
                result = .failure(error)
            }
            if !cancellation.isCancelled { done(result) }
        }
    }

    private func look(at source: SecretsManagerSource, refused: Found?) throws(Unavailable) -> Found
    {
        let credential = try credential()
        let region = try region(source.region)
        let fetch = { (stage: SecretStage) throws(Unavailable) -> SecretVersion? in
            do throws(AWSFailure) {
                return try self.client.secretVersion(
                    stage, of: source.secretID, region: region, signedBy: credential)
            } catch {
                if error.code == "ExpiredTokenException" { self.requestRefresh() }
                throw Unavailable(reason: error.reason)
            }
        }
        guard let current = try fetch(.current) else {
            throw Unavailable(reason: "secret \(source.secretID) has no version AWSCURRENT")
        }
        let newest = Found(stage: .current, version: current, currentID: current.id)
        guard let refused, refused.currentID == current.id else { return newest }
        let stages = SecretStage.allCases
        let position = stages.firstIndex(of: refused.stage) ?? 0
        for stage in stages[(position + 1)...] {
            if let version = try fetch(stage), version.id != refused.version.id,
                version.id != current.id
            {
                return Found(stage: stage, version: version, currentID: current.id)
            }
        }
        return newest
    }
}

// MARK: - Threads

/// A few threads that do what is submitted, in order; they come into being when they are needed.
private final class Jobs: Sendable {
    typealias Job = @Sendable () -> Void

    private struct State {
        var waiting: [Job] = []
        var idle = 0
        var threads: [BackgroundThread] = []
        var isStopping = false
    }

    private let limit: Int
    private nonisolated(unsafe) let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private nonisolated(unsafe) let condition: UnsafeMutablePointer<pthread_cond_t>
    /// Guarded by `mutex`.
    private nonisolated(unsafe) var state = State()

    init(threads: Int) {
        limit = threads
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        condition.initialize(to: pthread_cond_t())
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func submit(_ job: @escaping Job) {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        guard !state.isStopping else { return }
        state.waiting.append(job)
        if state.idle < state.waiting.count, state.threads.count < limit { startThread() }
        pthread_cond_signal(condition)
    }

    /// Waits for what is being done; what waits is dropped.
    func stop() {
        pthread_mutex_lock(mutex)
        state.isStopping = true
        state.waiting = []
        let threads = state.threads
        state.threads = []
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
        for thread in threads { thread.join() }
    }

    /// A system without threads leaves the job waiting for one that is there, or for the next
    /// submission.
    private func startThread() {
        guard let thread = try? BackgroundThread.start({ self.run() }) else { return }
        state.threads.append(thread)
    }

    private func run() {
        while let job = next() { job() }
    }

    private func next() -> Job? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while state.waiting.isEmpty, !state.isStopping {
            state.idle += 1
            pthread_cond_wait(condition, mutex)
            state.idle -= 1
        }
        return state.isStopping ? nil : state.waiting.removeFirst()
    }
}
