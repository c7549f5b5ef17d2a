// One rotation of one secret, step by step.
//
//               secret's versions                      user's passwords     who can log in
//   before      AWSCURRENT old                         old                  old
//   create      AWSCURRENT old   AWSPENDING new        old                  old
//   set         AWSCURRENT old   AWSPENDING new        new, old             old, new
//   test        the same                               the same             new is tried out
//   finish      AWSPREVIOUS old  AWSCURRENT new        new, old             old, new
//   drop        the same                               new                  new
//
// Invariant: at every moment, also between two requests, the password of AWSCURRENT is one of the
// user's. So whoever reads AWSCURRENT can log in, and whoever read it before can until `drop`.
//
// Nothing about it is kept here. Each step reads how far the rotation is from the secret's labels and
// the user's state, does what is missing, and does nothing if nothing is: a process may end at any
// point, and another one goes on. The token of a rotation is the id of its version.

package import AWS
package import Identity

/// What answers a login with a password, over TLS.
package protocol LoginTest {
    /// Where, in words.
    var name: String { get }

    /// Throws `unavailable` if there is no answer.
    func login(_ userName: String, _ password: Secret) throws(RotationFailure) -> LoginAnswer
}

package enum LoginAnswer: Sendable, Equatable {
    case accepted
    /// With the server's words.
    case refused(String)
}

/// Whose password a secret has, and where it can be tried out.
package struct RotationTarget {
    package let user: any RotatedUser
    /// nil: nowhere that is known.
    package let login: (any LoginTest)?

    package init(user: any RotatedUser, login: (any LoginTest)?) {
        self.user = user
        self.login = login
    }
}

/// What does not change from step to step.
package struct RotationSettings {
    package var recipe = PasswordRecipe()
    /// The name that the secret must have, and that a secret without one is for.
    package var userName: String?
    package var userNameKey = "username"
    package var passwordKey = "password"
    /// Secrets Manager asked for it, so that it must know of the rotation.
    package var isManaged = false
    /// Nothing is changed; what would be is noted as planned.
    package var isDryRun = false
    /// For a user that is being changed, in each step.
    package var longestWait: Duration = .seconds(600)
    package var longestPause: Duration = .seconds(10)
    /// Nothing is waited for longer than this.
    package var deadline: Monotonic?
    /// A good password is tried so long while it is refused: the service says that all nodes know it.
    package var loginPatience: Duration = .seconds(30)

    package init() {}
}

/// A rotation that may have begun already.
package struct Rotation {
    private let store: any SecretStore
    /// The rotation's, and the id of its version.
    package let token: String
    private let settings: RotationSettings
    private let clock: RotationClock
    private let target: (SecretDocument) throws(RotationFailure) -> RotationTarget
    private let note: (RotationNote) -> Void

    /// - Parameters:
    ///   - target: whose password it is, by what AWSCURRENT says.
    ///   - note: called with what happened, as it happens.
    package init(
        _ store: any SecretStore, token: String, settings: RotationSettings,
        clock: RotationClock = .system,
        target: @escaping (SecretDocument) throws(RotationFailure) -> RotationTarget,
        note: @escaping (RotationNote) -> Void
    ) {
        self.store = store
        self.token = token
        self.settings = settings
        self.clock = clock
        self.target = target
        self.note = note
    }

    /// Does what is missing of a step. After a failure it can be done again.
    package func perform(_ step: RotationStep) throws(RotationFailure) {
        let secret = try store.describe()
        if settings.isManaged { try checkManaged(secret) }
        switch step {
        case .createSecret: try createSecret(secret)
        case .setSecret: try setSecret(secret)
        case .testSecret: try testSecret(secret)
        case .finishSecret: try finishSecret(secret)
        case .dropPrevious: try dropPrevious(secret)
        }
    }

    /// What is wrong with the value of AWSPENDING, if there is one: nobody can finish this rotation,
    /// and it must begin anew with another token.
    package func problemWithPending() throws(RotationFailure) -> String? {
        let secret = try store.describe()
        guard RotationPhase(of: token, in: secret) == .pending,
            let version = try store.version(.pending, version: token)
        else { return nil }
        let before = try current(secret)
        do throws(RotationFailure) {
            _ = try checked(version, before, target(before.document).user)
            return nil
        } catch {
            return error.reason
        }
    }

    private func checkManaged(_ secret: SecretDescription) throws(RotationFailure) {
        guard secret.isRotationEnabled else {
            throw RotationFailure(
                .unusable, "secret \(store.name) is not set up to be rotated by Secrets Manager")
        }
        guard RotationPhase(of: token, in: secret) != .notBegun else {
            throw RotationFailure(
                .unusable, "secret \(store.name) has no version \(token), which is to be rotated to"
            )
        }
    }

    // MARK: createSecret

    private func createSecret(_ secret: SecretDescription) throws(RotationFailure) {
        let phase = RotationPhase(of: token, in: secret)
        guard phase != .finished else { return note(.createSecret, .unchanged, isFinished) }
        guard phase != .abandoned else { throw superseded }
        let before = try current(secret)
        let target = try target(before.document)
        // That there is such a user, before a password is made for it.
        _ = try target.user.state()
        _ = try userName(before, target.user)
        if phase == .pending, let version = try store.version(.pending, version: token) {
            _ = try checked(version, before, target.user)
            return note(
                .createSecret, .unchanged, "version \(token) has a new password already")
        }
        guard !settings.isDryRun else {
            return note(
                .createSecret, .planned,
                "would put a new password into a version of \(store.name), as AWSPENDING")
        }
        let password = settings.recipe.make()
        if let problem = target.user.rules.problem(with: password) {
            throw RotationFailure(.unusable, "a new password for \(target.user.name): \(problem)")
        }
        let value = before.document.replacingPassword(with: password)
        guard value.count <= AWSClient.secretLimit else {
            throw RotationFailure(
                .unusable,
                "secret \(store.name): wanted at most \(AWSClient.secretLimit) bytes,"
                    + " got \(value.count)")
        }
        do throws(RotationFailure) {
            try store.putPending(value, token: token)
        } catch {
            // Somebody else with the same token was faster.
            guard error.kind == .superseded,
                let version = try store.version(.pending, version: token)
            else { throw error }
            _ = try checked(version, before, target.user)
        }
        note(.createSecret, .done, "new password in version \(token), as AWSPENDING")
    }

    // MARK: setSecret

    private func setSecret(_ secret: SecretDescription) throws(RotationFailure) {
        let phase = RotationPhase(of: token, in: secret)
        guard phase != .finished else { return note(.setSecret, .unchanged, isFinished) }
        guard phase != .abandoned else { throw superseded }
        let before = try current(secret)
        let target = try target(before.document)
        let pending =
            phase == .pending ? try store.version(.pending, version: token) : nil
        if settings.isDryRun {
            let state = try target.user.state()
            let kept = try kept(secret, before, target)
            return note(
                .setSecret, .planned,
                "would give user \(target.user.name) (\(Self.words(state))) the new password"
                    + (kept == nil
                        ? " alone, as there is none to keep" : ", and keep the one before"))
        }
        guard let pending else { throw nothingPending }
        let password = try checked(pending, before, target.user)
        // Before the change: what cannot be tried out now could not be after it either.
        let kept = try kept(secret, before, target)
        let passwords = [password] + (kept.map { $0 == password ? [] : [$0] } ?? [])
        try change(passwords, of: target.user, .setSecret)
    }

    /// The password that must stay good: that of AWSCURRENT. If it can be found out that the user
    /// has it not, since somebody moved labels or never set it, then that of AWSPREVIOUS if the user
    /// has that.
    private func kept(
        _ secret: SecretDescription, _ before: Version, _ target: RotationTarget
    ) throws(RotationFailure) -> Secret? {
        let user = target.user
        var candidate = before.document.password
        if let password = candidate, let problem = user.rules.problem(with: password) {
            note(
                .setSecret, .warning,
                "the password of AWSCURRENT cannot be kept, as it cannot be one of \(user.name):"
                    + " \(problem)")
            candidate = nil
        }
        guard let login = target.login else { return candidate }
        let name = try userName(before, user)
        if let candidate, try login.login(name, candidate) == .accepted { return candidate }
        if let holder = secret.holder(of: .previous),
            let version = try store.version(.previous, version: holder),
            let previous = try document(version, .previous).password, previous != candidate,
            user.rules.problem(with: previous) == nil,
            try login.login(name, previous) == .accepted
        {
            note(
                .setSecret, .warning,
                "\(login.name) refuses the password of AWSCURRENT and accepts that of AWSPREVIOUS,"
                    + " which is kept in its place")
            return previous
        }
        note(
            .setSecret, .warning,
            "\(login.name) accepts the password of no version: whoever uses the secret cannot log in"
                + " before this rotation is finished")
        return candidate
    }

    private func change(
        _ passwords: [Secret], of user: any RotatedUser, _ step: RotationStep
    ) throws(RotationFailure) {
        var patience = self.patience
        let change = try patience.change(
            user.name, note: { note(step, .waiting, $0) }, state: user.state,
            { () throws(RotationFailure) in try user.setPasswords(passwords) })
        let words =
            passwords.count == 1
            ? "has the new password alone" : "has the new password beside the one before"
        switch change {
        case .changed: note(step, .done, "user \(user.name) \(words)")
        case .unchanged: note(step, .unchanged, "user \(user.name) \(words) already")
        case .changedUntilRestart(let reason):
            note(step, .done, "user \(user.name) \(words)")
            note(step, .warning, "that is lost when the server restarts: \(reason)")
        }
    }

    private func waitUntilReady(
        _ user: any RotatedUser, _ patience: inout Patience, _ step: RotationStep
    ) throws(RotationFailure) {
        try patience.waitUntilReady(
            user.name, note: { note(step, .waiting, $0) }, user.state)
    }

    // MARK: testSecret

    private func testSecret(_ secret: SecretDescription) throws(RotationFailure) {
        let phase = RotationPhase(of: token, in: secret)
        guard phase != .abandoned else { throw superseded }
        let before = try current(secret)
        let target = try target(before.document)
        if settings.isDryRun {
            let place = target.login?.name
            return note(
                .testSecret, .planned,
                place.map { "would log in at \($0) with the new password" }
                    ?? "would wait until user \(target.user.name) is ready; no server is known to"
                    + " log in at")
        }
        var patience = self.patience
        try waitUntilReady(target.user, &patience, .testSecret)
        let name = try userName(before, target.user)
        guard phase != .finished else { return note(.testSecret, .unchanged, isFinished) }
        guard phase == .pending else { throw nothingPending }
        if let version = try store.version(.pending, version: token), version.value != before.value
        {
            return try testLogin(name, checked(version, before, target.user), target)
        }
        // RotateImmediately=false: Secrets Manager tries out whether rotations will work, with a
        // version that has no value, or the one of AWSCURRENT, and that it removes again. Then a
        // login can only show that there is a way to the server.
        guard let login = target.login, let password = before.document.password else {
            return note(.testSecret, .done, "user \(target.user.name) is ready to be rotated")
        }
        switch try login.login(name, password) {
        case .accepted:
            note(
                .testSecret, .done,
                "user \(target.user.name) is ready to be rotated, and logs in at \(login.name)")
        case .refused(let words):
            note(
                .testSecret, .warning,
                "user \(target.user.name) is ready to be rotated; \(login.name) refuses what the"
                    + " secret has now: \(words)")
        }
    }

    private func testLogin(
        _ name: String, _ password: Secret, _ target: RotationTarget
    ) throws(RotationFailure) {
        guard let login = target.login else {
            return note(
                .testSecret, .done,
                "user \(target.user.name) is ready; no login was tried, as no server is known")
        }
        var patience = Patience(
            until: min(self.patience.end, clock.now() + settings.loginPatience),
            longestPause: settings.longestPause, clock: clock)
        while true {
            switch try login.login(name, password) {
            case .accepted:
                return note(
                    .testSecret, .done, "\(name) logged in at \(login.name) with the new password")
            case .refused(let words):
                guard patience.wait() else {
                    throw RotationFailure(
                        .denied, "\(login.name) refuses \(name) with the new password: \(words)",
                        advice: "see that the user is on, and in the cache's user group; the"
                            + " password before is good as it was")
                }
            }
        }
    }

    // MARK: finishSecret

    private func finishSecret(_ secret: SecretDescription) throws(RotationFailure) {
        switch RotationPhase(of: token, in: secret) {
        case .finished: return note(.finishSecret, .unchanged, isFinished)
        case .abandoned: throw superseded
        case .notBegun where !settings.isDryRun: throw nothingPending
        case .notBegun, .pending: break
        }
        guard let holder = secret.holder(of: .current) else { throw noCurrent }
        guard !settings.isDryRun else {
            return note(
                .finishSecret, .planned,
                "would move AWSCURRENT from version \(holder) to the new one")
        }
        guard try store.version(.pending, version: token) != nil else { throw nothingPending }
        do throws(RotationFailure) {
            try store.makeCurrent(token, insteadOf: holder)
        } catch {
            // An answer that was lost: the second attempt finds that the label has moved.
            let now = try store.describe()
            guard RotationPhase(of: token, in: now) == .finished else { throw error }
        }
        note(
            .finishSecret, .done,
            "AWSCURRENT is version \(token); AWSPREVIOUS is version \(holder)")
    }

    // MARK: dropPrevious

    private func dropPrevious(_ secret: SecretDescription) throws(RotationFailure) {
        guard RotationPhase(of: token, in: secret) == .finished || settings.isDryRun else {
            throw RotationFailure(
                .superseded,
                "secret \(store.name): version \(token) is not AWSCURRENT, so that the password"
                    + " before it stays good")
        }
        if let other = secret.holder(of: .pending), other != token, !settings.isDryRun {
            throw RotationFailure(
                .superseded,
                "secret \(store.name): another rotation has begun, to version \(other)",
                advice: "let it finish, and drop the password before after it")
        }
        let now = try current(secret)
        let target = try target(now.document)
        guard !settings.isDryRun else {
            return note(
                .dropPrevious, .planned,
                "would leave user \(target.user.name) the new password alone")
        }
        guard let password = now.document.password else {
            throw RotationFailure(.unusable, "secret \(store.name), AWSCURRENT: no password")
        }
        if let problem = target.user.rules.problem(with: password) {
            throw RotationFailure(
                .unusable, "secret \(store.name), AWSCURRENT: the password: \(problem)")
        }
        let name = try userName(now, target.user)
        if let login = target.login,
            case .refused(let words) = try login.login(name, password)
        {
            throw RotationFailure(
                .denied,
                "\(login.name) refuses \(name) with the password of AWSCURRENT, so that no other is"
                    + " taken away: \(words)")
        }
        try change([password], of: target.user, .dropPrevious)
        var patience = self.patience
        try waitUntilReady(target.user, &patience, .dropPrevious)
    }

    // MARK: What there is

    private struct Version {
        let value: Secret
        let document: SecretDocument
    }

    private func current(_ secret: SecretDescription) throws(RotationFailure) -> Version {
        guard let holder = secret.holder(of: .current),
            let version = try store.version(.current, version: holder)
        else { throw noCurrent }
        return Version(value: version.value, document: try document(version, .current))
    }

    private func document(
        _ version: SecretVersion, _ stage: SecretStage
    ) throws(RotationFailure) -> SecretDocument {
        do throws(SecretLogin.Unusable) {
            return try SecretDocument(
                version.value, userNameKey: settings.userNameKey,
                passwordKey: settings.passwordKey)
        } catch {
            throw RotationFailure(
                .unusable, "secret \(store.name), \(stage.rawValue): \(error.reason)")
        }
    }

    /// The name that logs in: the secret's, the settings' or the service's, which must agree.
    private func userName(
        _ version: Version, _ user: any RotatedUser
    ) throws(RotationFailure) -> String {
        let names = [
            ("the secret", version.document.userName), ("the settings", settings.userName),
            ("its service", try user.userName()),
        ].compactMap { place, name in name.map { (place: place, name: $0) } }
        guard let first = names.first else {
            throw RotationFailure(
                .unusable,
                "secret \(store.name): wanted a user's name under the key"
                    + " \(settings.userNameKey), got none")
        }
        if let other = names.first(where: { $0.name != first.name }) {
            throw RotationFailure(
                .unusable,
                "secret \(store.name): the user is \(first.name) by \(first.place), and"
                    + " \(other.name) by \(other.place)")
        }
        return first.name
    }

    /// The password of AWSPENDING, if the rotation can go on with it.
    private func checked(
        _ version: SecretVersion, _ before: Version, _ user: any RotatedUser
    ) throws(RotationFailure) -> Secret {
        let document = try document(version, .pending)
        let place = "secret \(store.name), AWSPENDING (version \(token))"
        let advice =
            "take the label AWSPENDING from that version (update-secret-version-stage), and rotate"
            + " again"
        guard let password = document.password else {
            throw RotationFailure(.unusable, "\(place): no password", advice: advice)
        }
        guard document.userName == before.document.userName else {
            throw RotationFailure(
                .unusable,
                "\(place): wanted the user \(before.document.userName ?? "without a name") of"
                    + " AWSCURRENT, got \(document.userName ?? "one without a name")",
                advice: advice)
        }
        if let problem = user.rules.problem(with: password) {
            throw RotationFailure(
                .unusable, "\(place): the password: \(problem)", advice: advice)
        }
        return password
    }

    private var patience: Patience {
        let end = clock.now() + settings.longestWait
        return Patience(
            until: settings.deadline.map { min($0, end) } ?? end,
            longestPause: settings.longestPause, clock: clock)
    }

    private static func words(_ state: UserState) -> String {
        switch state {
        case .ready: "ready"
        case .busy(let status): status
        }
    }

    private func note(_ step: RotationStep, _ kind: RotationNote.Kind, _ message: String) {
        note(RotationNote(step, kind, message))
    }

    private var isFinished: String { "version \(token) is AWSCURRENT already" }

    private var superseded: RotationFailure {
        RotationFailure(
            .superseded,
            "secret \(store.name): version \(token) has neither AWSPENDING nor AWSCURRENT, since"
                + " another rotation took over")
    }

    private var nothingPending: RotationFailure {
        RotationFailure(
            .unusable,
            "secret \(store.name): version \(token) has no value with AWSPENDING, which createSecret"
                + " makes")
    }

    private var noCurrent: RotationFailure {
        RotationFailure(
            .unavailable, "secret \(store.name): no version has AWSCURRENT",
            advice: "give the secret a value with the user's name first")
    }
}
