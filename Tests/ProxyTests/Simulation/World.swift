// The real Router in a simulated world: clients, network, server, credentials and time, all from
// one seed.
//
//   SimulatedClient ──bytes──► ┌────────┐ ──outgoing──► SimulatedConnection ──► RedisModel
//     compares every byte      │ Router │                  checks every request
//   SimulatedClient ◄──output─ └────────┘ ◄──replies─── SimulatedConnection
//                               actions │
//                                       ▼
//                 the performer: does what Router.swift says, as late and in as many parts as the
//                 rules allow, and notes what each loss must lead to
//
// Checked: what a client gets is its own replies, each once, in order, byte for byte, and nothing
// behind the first thing that went wrong; a request runs at most once and never behind one of the
// same client that came later; a lost connection closes those it owed something to and nobody
// else; whoever is still connected at the end has got everything; after a drain nothing is left.

import Glibc
import Identity
import Proxy

/// One run's settings; `World.settings(for:)` draws them from the seed.
struct Settings {
    var limits = Limits()
    var events = 0
    var hasFaults = true
    var maximumClients = 12
    var habits = SimulatedClient.Habits()
    var isDrainedEarly = false
    /// Some clients have to log in before they are served.
    var hasLogins = false
    /// The server ends a login after a while.
    var hasTokens = false
    /// By user: what the server does not let it run.
    var denied: [Set<String>] = [[], []]
    /// An operator pauses and resumes users, replaces connections, renews logins, and ends sessions.
    var hasOrders = false
    /// That changes during the run, and the server loads its data now and then.
    var changesAccess = false
}

final class World {
    enum Verdict {
        case accept
        case refuse(String)
        /// The server does not answer.
        case silent
    }

    let seed: UInt64
    let settings: Settings
    var dice: Dice
    let router: Router
    private(set) var events = 0
    /// Grows with every byte and every action.
    private var progress = 0
    private(set) var failure: String?
    private var faults: Bool

    private var clients: [SimulatedClient] = []
    private var clientsByID: [UInt64: SimulatedClient] = [:]
    /// Those whose socket is open, or that the performer has not let go of yet.
    private var present: [SimulatedClient] = []
    private var refs: [UInt64: SessionRef] = [:]
    private var connections: [SimulatedConnection] = []
    private var connectionsByID: [UInt64: SimulatedConnection] = [:]
    /// Whom an own connection served last, for those that are gone.
    private var served: [UInt64: UInt64] = [:]
    /// Why the last own connection of a session was lost.
    private var losses: [UInt64: String] = [:]

    private(set) var now: UInt64 = 1_000_000_000
    private var lastTick: UInt64 = 0
    private var isDrained = false
    /// What the clients had in the proxy's hands when the drain began.
    private var takenAtDrain: [UInt64: Int] = [:]

    // Credentials: what the server accepts, what the source holds, and what was asked for.
    private var passwords = [0, 0]
    private var sourcePasswords = [0, 0]
    private var versions: [UInt64] = [0, 0]
    private var refreshes: [Int] = []
    /// Logins of clients that are being verified.
    private var verifications: [(attempt: UInt64, name: String, session: UInt64)] = []
    private var routes: [UInt64: Int] = [:]

    /// By user.
    private var isPaused = [false, false]
    private var killed: Set<UInt64> = []

    // What the server refuses at present.
    private(set) var denied: [Set<String>]
    private(set) var isLoading = false

    private(set) var statistics: [String: Int] = [:]

    init(seed: UInt64, settings: Settings) {
        self.seed = seed
        self.settings = settings
        faults = settings.hasFaults
        denied = settings.denied
        dice = Dice(seed: seed)
        router = Router(
            limits: settings.limits,
            routes: [
                Route(user: UserIndex(0), isDedicated: false),
                Route(user: UserIndex(1), isDedicated: false, principal: "somebody"),
                Route(user: UserIndex(0), isDedicated: true),
            ],
            userCount: 2,
            clientName: "simulated-proxy",
            seed: seed
        )
        // What the memory held before is not the router's doing.
        router.requestBuffer.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Settings that make everything small, most of the time, so that every limit is met.
    static func settings(for seed: UInt64, events: Int) -> Settings {
        var dice = Dice(seed: seed ^ 0x5e77_1265)
        var settings = Settings()
        settings.events = events
        settings.hasFaults = !dice.chance(1, in: 3)
        settings.maximumClients = dice.pick([1, 3, 12, 30])
        settings.isDrainedEarly = dice.chance(1, in: 3)
        settings.habits.tiesItself = !dice.chance(1, in: 5)
        settings.habits.sendsBlocks = dice.chance(1, in: 3)
        settings.habits.biggestValue = dice.pick([200, 2_000, 20_000])
        settings.habits.maximumRequests = dice.pick([1, 5, 40, 200])
        if dice.chance(1, in: 3) {
            for user in 0..<2 where dice.chance(2, in: 3) {
                settings.denied[user] = Set(
                    (0...dice.roll(4)).map { _ in dice.pick(RedisModel.deniable) }
                )
            }
        } else if dice.chance(1, in: 3) {
            settings.changesAccess = true
            settings.habits.isUnsure = true
        }
        settings.hasLogins = seed % 3 == 0
        settings.hasTokens = seed % 4 == 0
        settings.hasOrders = seed % 5 < 3
        settings.limits.connectionsPerPool = dice.pick([1, 1, 2])
        settings.limits.maximumPinned = dice.pick([1, 3, 1_000])
        settings.limits.spareConnections = dice.pick([0, 1, 2])
        if dice.chance(1, in: 5) {
            settings.habits.biggestValue = 400_000
            settings.habits.maximumRequests = 20
            return settings
        }
        settings.limits.receiveBuffer = dice.pick([64, 500, 4_000])
        settings.limits.replyChunk = dice.pick([100, 1_000, 16_000])
        settings.limits.sharedRequest = dice.pick([200, 2_000])
        settings.limits.upstreamBuffer = dice.pick([300, 5_000])
        settings.limits.uploadBuffer = settings.limits.upstreamBuffer
        settings.limits.replyBuffer = dice.pick([300, 5_000])
        settings.limits.bigReply = dice.pick([250, 2_000])
        settings.limits.initialWindow = dice.pick([1, 2, 8, 64])
        settings.limits.maximumWindow = dice.pick([1, 8, 1_000])
        settings.limits.replyWindow = dice.pick([500, 10_000])
        settings.limits.keptInput = dice.pick([0, 50, 4_000])
        return settings
    }

    func fail(_ text: @autoclosure () -> String) {
        if failure == nil { failure = "event \(events): \(text())" }
    }

    func count(_ what: String) {
        statistics[what, default: 0] += 1
    }

    // MARK: What the server asks

    func judgeLogin(user: Int, password: String) -> Verdict {
        if faults && dice.chance(1, in: 40) { return .silent }
        if faults && dice.chance(1, in: 20) { return .refuse("LOADING Redis is loading") }
        guard password == "PROXYPASS-\(user)-\(passwords[user])" else {
            return .refuse("WRONGPASS invalid username-password pair or user is disabled.")
        }
        return .accept
    }

    /// A request was run, which brings no byte on its way if replies are turned off.
    func didServe() { progress += 1 }

    func didExecute(client index: Int, number: Int) -> String? {
        let client = clients[index]
        guard number > client.lastExecuted else {
            return "request \(number) of client \(index) runs behind \(client.lastExecuted)"
        }
        guard number < client.firstForbidden else {
            return "request \(number) of client \(index) runs, behind the end of its session"
        }
        guard !client.outside.contains(number) else {
            return "request \(number) of client \(index) runs, which had not logged in"
        }
        guard !client.erroredNumbers.contains(number) else {
            return "request \(number) of client \(index) runs, although an error was its answer"
        }
        client.lastExecuted = number
        client.executed.insert(number)
        count("executed")
        return nil
    }

    /// A command that was run has waited for nothing, and may be sent again.
    func didWaitInVain(client index: Int, number: Int) {
        count("slices")
        let client = clients[index]
        if client.lastExecuted == number { client.lastExecuted = number - 1 }
        // Nor is it a lie to say that it was not run, if it cannot be sent again.
        client.executed.remove(number)
    }

    /// What only reads may be waited for twice.
    func mayRunAgain(client index: Int, number: Int) {
        let client = clients[index]
        if client.lastExecuted == number { client.lastExecuted = number - 1 }
    }

    // MARK: A run

    /// Runs until the settings' number of events is reached, then lets everything come to rest.
    /// Returns what went wrong, if anything did.
    func run() -> String? {
        for user in 0..<2 where !dice.chance(1, in: 3) { publish(user) }
        if dice.chance(1, in: 2) {
            router.warm(route: 0)
            didAct()
        }
        while events < settings.events && failure == nil {
            turn()
        }
        if settings.isDrainedEarly { drain() }
        comeToRest()
        if !isDrained {
            checkRest()
            drain()
            comeToRest()
        }
        checkDrained()
        return failure
    }

    private func turn() {
        now += UInt64(1 << dice.roll(24))
        if dice.chance(1, in: 300) { now += UInt64(dice.roll(3_000)) * 1_000_000 }
        router.advance(to: Instant(nanoseconds: now))
        for _ in 0...dice.roll(8) {
            guard failure == nil else { return }
            step()
        }
        endTurn()
    }

    private func step() {
        switch dice.roll(100) {
        case 0..<45:
            if !present.isEmpty { stepClient(dice.pick(present)) }
        case 45..<90:
            if !connections.isEmpty { stepConnection(dice.pick(connections)) }
        case 90..<94:
            if present.count < settings.maximumClients && dice.chance(1, in: 3) { open() }
        case 94..<96:
            if !refreshes.isEmpty { publish(refreshes.remove(at: dice.roll(refreshes.count))) }
            if !verifications.isEmpty {
                verify(verifications.remove(at: dice.roll(verifications.count)))
            }
        case 96:
            guard faults && dice.chance(1, in: 10) else { return }
            // The server and the source of the credential are never changed at the same moment.
            let user = dice.roll(2)
            if dice.chance(1, in: 2) {
                sourcePasswords[user] += 1
            } else {
                passwords[user] = sourcePasswords[user]
            }
        case 97:
            guard faults && dice.chance(1, in: 3), !connections.isEmpty else { return }
            let connection = dice.pick(connections)
            if connection.phase == .open { lose(connection, "reset by the server") }
        case 98 where settings.changesAccess:
            let user = dice.roll(2)
            let name = dice.pick(RedisModel.deniable)
            if denied[user].remove(name) == nil { denied[user].insert(name) }
            if dice.chance(1, in: 4) { isLoading.toggle() }
        case 98:
            guard dice.chance(1, in: 10) else { return }
            router.trim()
            didAct()
        case 99 where settings.hasOrders && dice.chance(1, in: 4): order()
        default:
            if router.wantsTicks && now - lastTick > 20_000_000 { tick() }
        }
    }

    /// What an operator may want at any time.
    private func order() {
        let user = dice.chance(1, in: 2) ? nil : dice.roll(2)
        let index = user.map { UserIndex($0) }
        switch dice.roll(6) {
        case 0:
            count("orders: pause")
            router.pause(index)
            for number in 0..<2 where user == nil || user == number { isPaused[number] = true }
        case 1, 2:
            count("orders: resume")
            for number in 0..<2 where user == nil || user == number { isPaused[number] = false }
            router.resume(index)
        case 3:
            count("orders: reconnect")
            router.reconnect(index)
        case 4:
            count("orders: renew")
            router.renew(index)
        default:
            guard !present.isEmpty, dice.chance(1, in: 4) else { return }
            let client = dice.pick(present)
            guard !client.isClosed else { return }
            count("orders: kill")
            killed.insert(client.id)
            if !router.kill(session: client.id) { fail("there is no session to be killed") }
        }
        didAct()
    }

    private func endTurn() {
        var more = true
        while more && failure == nil {
            more = false
            while let upstream = router.nextDirtyUpstream() {
                more = true
                flush(upstream)
            }
            while let session = router.nextDirtySession() {
                more = true
                flush(session)
            }
            perform()
        }
        router.reap()
        router.checkInvariants()
        for client in present {
            guard let session = refs[client.id] else { continue }
            if client.isReadable != session.pointee.wantsInput {
                fail("the performer was not told whether to read client \(client.index)")
            }
        }
        if router.wantsTicks && now - lastTick > 20_000_000 { tick() }
    }

    private func tick() {
        lastTick = now
        router.tick()
        didAct()
        for session in router.unwatched {
            guard let client = clientsByID[session.pointee.id], !client.isClosed else { continue }
            count("unwatched")
            switch client.end {
            case .open: break
            case .finished:
                count("ends looked for")
                client.showEnd()
                router.didSeeEnd(of: session)
            case .reset: router.didLose(session)
            }
            didAct()
        }
    }

    /// After each call of the router: carry out, count, check.
    private func didAct() {
        events += 1
        perform()
        router.checkInvariants()
    }

    // MARK: Clients

    private func open() {
        let route = dice.roll(3)
        let mustLogIn = settings.hasLogins && dice.chance(1, in: 2)
        let session =
            mustLogIn ? router.openSessionAwaitingLogin() : router.openSession(route: route)
        routes[session.pointee.id] = route
        let client = SimulatedClient(
            id: session.pointee.id,
            index: clients.count,
            habits: settings.habits,
            denied: settings.denied[route % 2]
        )
        if mustLogIn { client.mustLogIn() }
        if !faults { client.habits.violates = dice.chance(1, in: 2) }
        client.capacity = dice.pick([10, 300, 65_536])
        client.isLazy = dice.chance(1, in: 4)
        clients.append(client)
        present.append(client)
        clientsByID[client.id] = client
        refs[client.id] = session
        count("clients")
        didAct()
    }

    private func stepClient(_ client: SimulatedClient) {
        switch dice.roll(20) {
        case 0..<6:
            if client.end == .open && client.outstanding < settings.habits.maximumRequests
                && client.pending < 100_000
            {
                for _ in 0...dice.roll(settings.habits.maximumRequests) { client.generate(&dice) }
            }
            deliver(client)
        case 6..<13: deliver(client)
        case 13..<18: read(client)
        case 18:
            if dice.chance(1, in: 60) && client.end == .open {
                client.finish(keeping: client.pending == 0 ? 0 : dice.roll(client.pending + 1))
            }
            if dice.chance(1, in: 10) { client.isLazy.toggle() }
        default:
            if dice.chance(1, in: 80) {
                client.end = .reset
                if dice.chance(1, in: 2) { reset(client) }
            }
        }
    }

    private func reset(_ client: SimulatedClient) {
        guard !client.isClosed, let session = refs[client.id] else { return }
        router.didLose(session)
        didAct()
    }

    /// The proxy reads what the client wrote, if it wants to; an end shows when all is read.
    private func deliver(_ client: SimulatedClient) {
        guard !client.isClosed, let session = refs[client.id] else { return }
        if client.end == .reset {
            reset(client)
            return
        }
        if client.pending == 0 {
            if client.end == .finished && !client.hasSeenEnd {
                client.hasSeenEnd = true
                client.showEnd()
                router.didReceiveEnd(from: session)
                didAct()
            }
            return
        }
        guard session.pointee.wantsInput else { return }
        let buffer = router.receiveBuffer(for: session)
        guard !buffer.isEmpty, buffer.count <= settings.limits.receiveBuffer else {
            fail("a receive buffer of \(buffer.count) bytes")
            return
        }
        let count = dice.part(of: min(client.pending, buffer.count))
        client.take(count, into: buffer)
        progress += count
        let hadSecret = contains(UnsafeRawBufferPointer(rebasing: buffer[..<count]), "SECRET-")
        router.didReceive(count, from: session)
        events += 1
        if hadSecret, contains(UnsafeRawBufferPointer(router.requestBuffer), "SECRET-") {
            fail("a secret of client \(client.index) stays in the shared receive buffer")
        }
        perform()
        router.checkInvariants()
    }

    private func read(_ client: SimulatedClient) {
        guard client.unread > 0 else { return }
        guard !client.isLazy || dice.chance(1, in: 30) else { return }
        client.unread -= dice.part(of: client.unread)
        guard client.isBlocked, !client.isClosed, let session = refs[client.id] else { return }
        client.isBlocked = false
        flush(session)
    }

    private func flush(_ session: SessionRef) {
        guard let client = clientsByID[session.pointee.id], !client.isClosed else { return }
        let output = router.output(of: session)
        if output.isEmpty { return }
        if client.end == .reset && dice.chance(1, in: 2) {
            reset(client)
            return
        }
        let room = client.isBlocked ? 0 : min(output.count, client.capacity - client.unread)
        let count = room > 0 && faults ? dice.part(of: room) : room
        if count > 0 {
            if let wrong = client.accept(UnsafeRawBufferPointer(rebasing: output[..<count])) {
                fail("client \(client.index) \(wrong)")
            }
            client.unread += count
            progress += count
        }
        if count < output.count { client.isBlocked = true }
        router.didSend(count, to: session)
        didAct()
    }

    private func close(_ session: SessionRef) {
        guard let client = clientsByID[session.pointee.id] else {
            fail("an unknown session is closed")
            return
        }
        guard !client.isClosed else {
            fail("client \(client.index) is closed twice")
            return
        }
        client.isClosed = true
        if client.refusals > 0 { count("clients refused something") }
        for (name, times) in client.sent where !SimulatedConnection.plain.contains(name) {
            statistics["sent: \(name)", default: 0] += times
        }
        refs[client.id] = nil
        present.removeAll { $0 === client }
        checkClose(client)
    }

    private func checkClose(_ client: SimulatedClient) {
        let hasAll = client.outstanding == 0 && !client.isPartway
        let reason = client.closeReason ?? "nothing"
        let who = "client \(client.index)"
        switch reason {
        case "clientClosed":
            guard client.hasShownEnd else { return fail("\(who) is closed, but did not leave") }
            if !hasAll && !client.mayBeCut && !client.mustBeClosed {
                fail("\(who) left without the replies to what it had sent: \(client.unanswered)")
            }
        case "clientReset":
            if client.end != .reset { fail("\(who) is lost, but was not") }
        case "quit", "violation":
            if !client.hasEnded {
                fail("\(who) is closed for \(reason) without a cause: \(client.unanswered)")
            }
            if !hasAll && !client.mayBeCut { fail("\(who) is closed before its last reply") }
        case "upstreamLost":
            if !client.mustBeClosed && !client.mayBeClosed {
                let reason = losses[client.id] ?? "no loss"
                fail("\(who) is closed for \(reason), with nothing lost: \(client.unanswered)")
            }
        case "errorInPlaceOfState":
            if !client.lastWasError { fail("\(who) is closed without an error") }
        case "slowReader":
            if client.unread < client.capacity && !client.isBlocked {
                fail("\(who) reads, and is closed as a slow reader")
            }
        case "killed":
            if !killed.contains(client.id) { fail("\(who) is killed without an order") }
        case "loginExpired":
            if !settings.hasTokens { fail("\(who) is closed for a login that does not end") }
        case "loginDeadline":
            if !client.hasToLogIn { fail("\(who) is closed for want of a login") }
        case "stalledUpload":
            if refs.count + 1 < settings.limits.maximumPinned {
                fail("\(who) is closed to make room for nobody")
            }
        case "drained":
            if !isDrained { fail("\(who) is drained without a drain") }
            let taken = takenAtDrain[client.id] ?? 0
            if let next = client.current, next.requestEnd <= taken, !client.mayBeCut,
                !client.mustBeClosed
            {
                fail("\(who) is drained before its last reply")
            }
        default:
            fail("\(who) is closed for \(reason)")
        }
        count("closed: \(reason)")
    }

    // MARK: The performer

    private func perform() {
        while let action = router.nextAction() {
            progress += 1
            switch action {
            case .connect(let upstream): connect(upstream)
            case .disconnect(let upstream):
                if let connection = connectionsByID[upstream.pointee.id] {
                    if connection.isPoisoned { mustClose(connection) }
                    for index in connection.poisonedClients { mayClose(index) }
                    // Its login has ended, perhaps, and it still owes replies.
                    if settings.hasTokens { connection.unanswered.forEach(mayClose) }
                    drop(connection)
                }
            case .finishSending(let upstream):
                connectionsByID[upstream.pointee.id]?.hasProxyEnded = true
            case .closeSession(let session): close(session)
            case .setSessionReading(let session):
                clientsByID[session.pointee.id]?.isReadable = session.pointee.wantsInput
            case .setUpstreamReading: break
            case .refreshCredential(let user): refreshes.append(user.rawValue)
            case .report(let event): note(event)
            case .verifyLogin(let session, let attempt):
                let id = session.pointee.id
                let isSecret = attempt.secret.withBytes { $0.starts(with: "SECRET-".utf8) }
                if !isSecret { fail("a login without the client's password") }
                verifications.append(
                    (attempt.id, String(decoding: attempt.name, as: UTF8.self), id))
            case .forgetLogin: count("logins forgotten")
            }
        }
    }

    private func note(_ event: Event) {
        let text = "\(event)"
        if text.contains("SECRET-") || text.contains("PROXYPASS-") {
            fail("a secret is in an event: \(text)")
        }
        switch event {
        case .sessionClosed(let session, let reason):
            clientsByID[session]?.closeReason = "\(reason)"
        case .ready: count("connections")
        case .connectFailed(let facts, _):
            count("connects failed")
            // Behind RESET, as below.
            if let session = served[facts.connection] { mayClose(session: session) }
        case .loginRefused: count("logins refused")
        case .databaseRefused: count("databases refused")
        case .noCredential(let facts, _):
            count("logins without credential")
            // Behind RESET: whoever knows this connection's id cannot go on on another.
            if let session = connectionsByID[facts.connection]?.session {
                mayClose(session: session)
            }
        case .lost(let facts, let reason, _, _):
            count("connections lost")
            losses[served[facts.connection] ?? 0] = reason
            // A renewal that the server was late with.
            if reason.contains("did not answer a login"), let session = served[facts.connection] {
                mayClose(session: session)
            }
        case .renewed: count("logins renewed")
        case .renewalFailed: count("renewals failed")
        case .loginExpired: count("logins expired")
        case .replaced(_, let reason): count("replaced for \(reason)")
        case .failover: count("failovers")
        case .gaveUp: count("waits given up")
        case .violation: count("violations")
        }
    }

    private(set) lazy var endsLogins = settings.hasTokens
    private var life = LoginLife(renewAfter: .seconds(2), limit: .seconds(15))

    private func verify(_ login: (attempt: UInt64, name: String, session: UInt64)) {
        let isKnown = login.name == "default"
        count(isKnown ? "clients' logins accepted" : "clients' logins refused")
        router.didVerifyLogin(
            attempt: login.attempt,
            verdict: isKnown ? .accepted(route: routes[login.session] ?? 0) : .refused
        )
        didAct()
    }

    private func publish(_ user: Int) {
        versions[user] += 1
        let fails = faults && dice.chance(1, in: 6)
        let password = "PROXYPASS-\(user)-\(sourcePasswords[user])"
        let credential = Credential(
            userName: "user\(user)", secret: Secret(password.utf8),
            kind: settings.hasTokens ? .iamToken(life) : .password)
        router.publish(
            CredentialSnapshot(
                version: versions[user],
                credential: fails ? nil : credential,
                failure: fails ? "the simulated source is gone" : nil
            ),
            for: UserIndex(user)
        )
        didAct()
    }

    private func connect(_ upstream: UpstreamRef) {
        guard connectionsByID[upstream.pointee.id] == nil else {
            fail("connection \(upstream.pointee.id) is connected twice")
            return
        }
        let connection = SimulatedConnection(upstream)
        if faults && dice.chance(1, in: 30) { connection.phase = .hung }
        connections.append(connection)
        connectionsByID[connection.id] = connection
    }

    private func drop(_ connection: SimulatedConnection) {
        connection.phase = .closed
        served[connection.id] = connection.session
        connections.removeAll { $0 === connection }
        connectionsByID[connection.id] = nil
    }

    private func stepConnection(_ connection: SimulatedConnection) {
        switch connection.phase {
        case .connecting:
            guard dice.chance(1, in: 3) else { return }
            if faults && dice.chance(1, in: 6) {
                drop(connection)
                router.didFailToConnect(connection.upstream, reason: "refused")
            } else {
                connection.phase = .open
                router.didConnect(connection.upstream)
            }
            didAct()
        case .hung:
            if dice.chance(1, in: 2_000) { comeUnstuck(connection) }
        case .open:
            switch dice.roll(10) {
            case 0..<4: serve(connection)
            case 4..<9: receive(connection)
            default:
                if dice.chance(1, in: 4) { connection.release(self) }
                if dice.chance(1, in: 10) { connection.push() }
                if connection.isCongested && dice.chance(1, in: 2) {
                    connection.isCongested = false
                    flush(connection.upstream)
                }
            }
        case .closed: break
        }
    }

    private func comeUnstuck(_ connection: SimulatedConnection) {
        drop(connection)
        router.didFailToConnect(connection.upstream, reason: "timed out")
        didAct()
    }

    private func serve(_ connection: SimulatedConnection) {
        for _ in 0...dice.roll(6) {
            if let wrong = connection.serve(self) { fail(wrong) }
        }
    }

    private func receive(_ connection: SimulatedConnection) {
        guard connection.upstream.pointee.wantsReplies else { return }
        guard connection.receivable > 0 else {
            if connection.hasServerEnded { lose(connection, "closed by the server") }
            return
        }
        let limit = min(connection.receivable, router.replyBuffer.count)
        let count = dice.part(of: limit)
        connection.take(count, into: router.replyBuffer)
        progress += count
        router.didReceive(count, from: connection.upstream)
        events += 1
        router.checkInvariants()
        while let session = router.nextDirtySession() { flush(session) }
        perform()
    }

    private func flush(_ upstream: UpstreamRef) {
        guard let connection = connectionsByID[upstream.pointee.id], connection.phase == .open
        else { return }
        if dice.chance(1, in: 8) {
            connection.isCongested = true
            return
        }
        let outgoing = router.outgoing(of: upstream)
        if !outgoing.isEmpty {
            let isLogin = contains(outgoing, "PROXYPASS-")
            if connection.isShared, isPaused[upstream.pointee.user.rawValue], !isLogin {
                fail("a paused connection sends")
            }
            progress += outgoing.count
            if let wrong = connection.handOver(outgoing, isLogin: isLogin, self) { fail(wrong) }
        }
        if outgoing.isEmpty { events -= 1 }
        router.didHandOver(upstream)
        didAct()
    }

    /// Whoever is owed something on a shared connection that ends.
    private func mustClose(_ connection: SimulatedConnection) {
        for index in connection.unanswered where !clients[index].isClosed {
            clients[index].mustBeClosed = true
        }
    }

    func mayClose(_ index: Int) { clients[index].mayBeClosed = true }

    func mayClose(session: UInt64) { clientsByID[session]?.mayBeClosed = true }

    /// A connection is lost: notes who must be closed for it before the router hears of it.
    private func lose(_ connection: SimulatedConnection, _ reason: String) {
        drop(connection)
        if connection.isShared {
            mustClose(connection)
        } else if connection.upstream.pointee.hasHandedOver,
            let owner = connection.upstream.pointee.owner
        {
            clientsByID[owner.pointee.id]?.mustBeClosed = true
        }
        router.didLose(connection.upstream, reason: reason)
        didAct()
    }

    // MARK: The end

    private func drain() {
        isDrained = true
        for client in present { takenAtDrain[client.id] = client.taken }
        router.drain()
        didAct()
    }

    /// Faults off, everybody reads, everything is delivered, time goes on.
    private func comeToRest() {
        faults = false
        isLoading = false
        isPaused = [false, false]
        router.resume()
        didAct()
        for user in 0..<2 { passwords[user] = sourcePasswords[user] }
        if settings.hasTokens {
            // Or renewals would go on for ever.
            life = LoginLife()
            endsLogins = false
            for user in 0..<2 { publish(user) }
        }
        var idle = 0
        var rounds = 0
        // Longer than any time-out, so that what is to end by itself has ended.
        while idle < 40 && failure == nil {
            rounds += 1
            guard rounds < 100_000 else { return fail("the world does not come to rest") }
            let before = progress
            now += 300_000_000
            router.advance(to: Instant(nanoseconds: now))
            while !refreshes.isEmpty { publish(refreshes.removeLast()) }
            while !verifications.isEmpty { verify(verifications.removeLast()) }
            for connection in connections {
                connection.isCongested = false
                if connection.phase == .hung { comeUnstuck(connection) }
                if connection.phase == .open {
                    flush(connection.upstream)
                    connection.release(self)
                    serve(connection)
                    receive(connection)
                } else {
                    stepConnection(connection)
                }
                connection.release(self)
            }
            for client in present {
                client.isLazy = false
                while client.unread > 0 && failure == nil { read(client) }
                deliver(client)
            }
            endTurn()
            idle = progress == before ? idle + 1 : 0
        }
    }

    private func checkRest() {
        for client in present {
            if client.mustBeClosed {
                fail("client \(client.index) lost its replies, and was not closed")
            } else if client.hasEnded {
                fail("client \(client.index) ended its session, and was not closed")
            } else if client.end != .open {
                fail("client \(client.index) left, and was not closed")
            } else if let wanted = client.current {
                fail("for ever, \(describe(client)), reply \(wanted.number)")
            } else if client.pending > 0 {
                fail("client \(client.index) is not read any more")
            } else if client.mustGetNothing {
                fail("client \(client.index) got an error in place of state, and is still open")
            }
        }
    }

    private func describe(_ client: SimulatedClient) -> String {
        let next = client.current.map { "\($0.number) (\($0.name))" } ?? "nothing"
        let connection = refs[client.id]?.pointee.upstream.map {
            "\($0.pointee.id) \($0.pointee.isShared ? "shared" : "own") \($0.pointee.state)"
        }
        return "client \(client.index), \(client.end), \(client.requests) requests, waits for "
            + "\(next), unread \(client.unread), blocked \(client.isBlocked), "
            + "lost \(client.mustBeClosed), relayed \(client.isRelayed), "
            + "connection \(connection ?? "none"), pending \(client.pending)"
    }

    private func checkDrained() {
        guard failure == nil else { return }
        if router.sessionCount != 0 || !present.isEmpty {
            let names = present.map { describe($0) }.joined(separator: "; ")
            fail("\(router.sessionCount) sessions outlive the drain: \(names)")
        }
        if router.pinnedCount != 0 { fail("\(router.pinnedCount) own connections outlive it") }
        let spare = router.spare.joined().count
        if connections.filter({ !$0.isShared }).count != spare {
            fail("own connections outlive their sessions")
        }
        if router.allocatedSessions != 0 {
            fail("\(router.allocatedSessions) sessions are leaked")
        }
        if router.allocatedUpstreams != router.shared.count + spare {
            fail("\(router.allocatedUpstreams) upstream connections are left")
        }
    }
}
