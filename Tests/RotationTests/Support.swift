// A secret and a user in memory, which count what is asked of them and fail where they are told to, as
// a process does that is killed there: before a request takes effect, or behind it.

import AWS
import Identity
import Rotation
import Synchronization

extension Secret {
    /// For comparing in tests.
    var text: String { withBytes { String(decoding: $0, as: UTF8.self) } }

    convenience init(_ text: String) {
        self.init(text.utf8)
    }
}

/// Where a run of a rotation ends.
final class Breakpoint {
    enum Place: CaseIterable {
        /// The request never arrives.
        case before
        /// It takes effect, and nobody learns of it.
        case after
    }

    var requests = 0
    private var breaksAt: Int?
    private var place = Place.before

    static let failure = RotationFailure(.unavailable, "the process ended here")

    /// - Parameter request: counted from 0 from now on.
    func set(at request: Int?, _ place: Place = .before) {
        requests = 0
        breaksAt = request
        self.place = place
    }

    func pass<Answer>(
        _ request: () throws(RotationFailure) -> Answer
    ) throws(RotationFailure) -> Answer {
        let isHere = requests == breaksAt
        requests += 1
        if isHere, place == .before { throw Self.failure }
        let answer = try request()
        if isHere { throw Self.failure }
        return answer
    }
}

/// A secret's versions, by the rules of Secrets Manager that matter here.
final class MemoryStore: SecretStore {
    let name = "test/cache"
    let breakpoint: Breakpoint
    var values: [String: String] = [:]
    var stages: [String: Set<String>] = [:]
    var isRotationEnabled = true

    init(_ breakpoint: Breakpoint, current: String, version: String = "v0") {
        self.breakpoint = breakpoint
        values[version] = current
        stages[version] = [SecretStage.current.rawValue]
    }

    func value(_ stage: SecretStage) -> String? {
        stages.first { $0.value.contains(stage.rawValue) }.flatMap { values[$0.key] }
    }

    func describe() throws(RotationFailure) -> SecretDescription {
        try breakpoint.pass { () throws(RotationFailure) in
            SecretDescription(
                arn: "arn:aws:secretsmanager:us-east-1:1:secret:test", name: name,
                isRotationEnabled: isRotationEnabled, stages: stages)
        }
    }

    func version(_ stage: SecretStage, version: String) throws(RotationFailure) -> SecretVersion? {
        try breakpoint.pass { () throws(RotationFailure) in
            guard stages[version]?.contains(stage.rawValue) == true, let value = values[version]
            else { return nil }
            return SecretVersion(id: version, value: Secret(value))
        }
    }

    func putPending(_ value: Secret, token: String) throws(RotationFailure) {
        try breakpoint.pass { () throws(RotationFailure) in
            if let stored = values[token], stored != value.text {
                throw RotationFailure(.superseded, "ResourceExistsException")
            }
            move(.pending, to: token)
            values[token] = value.text
        }
    }

    func makeCurrent(_ version: String, insteadOf holder: String) throws(RotationFailure) {
        try breakpoint.pass { () throws(RotationFailure) in
            guard stages[holder]?.contains(SecretStage.current.rawValue) == true else {
                throw RotationFailure(.unusable, "InvalidParameterException")
            }
            move(.current, to: version)
            move(.previous, to: holder)
        }
    }

    func move(_ stage: SecretStage, to version: String) {
        for (other, labels) in stages where labels.contains(stage.rawValue) {
            stages[other]?.remove(stage.rawValue)
        }
        stages[version, default: []].insert(stage.rawValue)
    }
}

/// A user with at most two passwords, which is busy for some looks after each change.
final class MemoryUser: RotatedUser, LoginTest {
    let breakpoint: Breakpoint
    let rules = PasswordRules.aws
    let name = "app"
    var passwords: [String]
    /// Looks that find it busy after a change.
    var busyLooks = 0
    private var looksLeft = 0
    /// Changes that find it busy although the look before found it ready.
    var racesLost = 0
    var changes: [[String]] = []
    var isUnreachable = false
    var refusals = 0

    init(_ breakpoint: Breakpoint, passwords: [String]) {
        self.breakpoint = breakpoint
        self.passwords = passwords
    }

    func userName() throws(RotationFailure) -> String? { "app" }

    func state() throws(RotationFailure) -> UserState {
        try breakpoint.pass { () throws(RotationFailure) in
            guard looksLeft > 0 else { return .ready }
            looksLeft -= 1
            return .busy("modifying")
        }
    }

    func setPasswords(_ passwords: [Secret]) throws(RotationFailure) -> PasswordChange {
        try breakpoint.pass { () throws(RotationFailure) in
            guard looksLeft == 0, racesLost == 0 else {
                racesLost = max(0, racesLost - 1)
                throw RotationFailure(.busy, "InvalidUserState")
            }
            guard (1...2).contains(passwords.count),
                Set(passwords.map(\.text)).count == passwords.count
            else { throw RotationFailure(.unusable, "InvalidParameterValue") }
            self.passwords = passwords.map(\.text)
            changes.append(self.passwords)
            looksLeft = busyLooks
            return .changed
        }
    }

    func login(_ userName: String, _ password: Secret) throws(RotationFailure) -> LoginAnswer {
        guard !isUnreachable else { throw RotationFailure(.unavailable, "no way there") }
        guard userName == "app", passwords.contains(password.text) else {
            refusals += 1
            return .refused("WRONGPASS")
        }
        return .accepted
    }
}

/// Time that passes only by waiting.
final class TestClock: Sendable {
    private let nanoseconds = Mutex<UInt64>(1)

    var clock: RotationClock {
        RotationClock(
            now: { [self] in Monotonic(nanoseconds: nanoseconds.withLock { $0 }) },
            wait: { [self] duration in
                let later = Monotonic(nanoseconds: nanoseconds.withLock { $0 }) + duration
                nanoseconds.withLock { $0 = later.nanoseconds }
            })
    }

    var elapsed: Duration { .nanoseconds(Int64(nanoseconds.withLock { $0 }) - 1) }
}

/// One secret, one user, and rotations of them.
final class Bench {
    static let old = "an-old-password-0"
    let breakpoint = Breakpoint()
    let store: MemoryStore
    let user: MemoryUser
    let time = TestClock()
    var settings = RotationSettings()
    var hasEndpoint = true
    var notes: [RotationNote] = []

    init(secret: String? = nil) {
        store = MemoryStore(
            breakpoint,
            current: secret ?? #"{"username": "app", "password": "\#(Self.old)", "n": 1.10}"#)
        user = MemoryUser(breakpoint, passwords: [Self.old])
    }

    func rotation(_ token: String = "v1") -> Rotation {
        Rotation(
            store, token: token, settings: settings, clock: time.clock,
            target: { [self] _ throws(RotationFailure) in
                RotationTarget(user: user, login: hasEndpoint ? user : nil)
            },
            note: { [self] in notes.append($0) })
    }

    func rotate(_ token: String = "v1") throws(RotationFailure) {
        for step in RotationStep.rotation { try rotation(token).perform(step) }
    }

    func password(_ stage: SecretStage) throws -> String? {
        try store.value(stage).flatMap { try SecretDocument(Secret($0)).password?.text }
    }

    /// The invariant: whoever reads the secret now can log in.
    func secretWorks() throws -> Bool {
        user.passwords.contains(try password(.current) ?? "")
    }
}
