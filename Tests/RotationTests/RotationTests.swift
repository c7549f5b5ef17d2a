import AWS
import Identity
import Rotation
import Testing

@Suite struct RotationTests {
    @Test func theFourStepsPutANewPasswordBesideTheOldOne() throws {
        let bench = Bench()
        try bench.rotate()
        let new = try #require(try bench.password(.current))
        #expect(new != Bench.old)
        #expect(bench.user.passwords == [new, Bench.old])
        #expect(try bench.password(.previous) == Bench.old)
        #expect(bench.store.stages["v1"] == ["AWSCURRENT", "AWSPENDING"])
        #expect(bench.notes.allSatisfy { $0.kind == .done })
        #expect(bench.user.refusals == 0)
    }

    @Test func everythingElseInTheSecretStaysAsItIs() throws {
        let bench = Bench(
            secret:
                #"{"username": "app", "z": [1.10, "]}"], "password": "an-old-password-0", "a": null}"#
        )
        try bench.rotate()
        let new = try #require(try bench.password(.current))
        #expect(
            bench.store.value(.current)
                == #"{"username": "app", "z": [1.10, "]}"], "password": "\#(new)", "a": null}"#)
    }

    @Test func aFirstRotationGivesAPasswordToASecretWithoutOne() throws {
        let bench = Bench(secret: #"{"username": "app"}"#)
        try bench.rotate()
        let new = try #require(try bench.password(.current))
        #expect(bench.user.passwords == [new])
    }

    @Test func aSecretThatIsThePasswordAloneStaysOne() throws {
        let bench = Bench(secret: Bench.old)
        try bench.rotate()
        let new = try #require(bench.store.value(.current))
        #expect(bench.user.passwords == [new, Bench.old])
    }

    @Test func twoHundredRotationsInARowKeepTheTwoNewestPasswords() throws {
        let bench = Bench()
        bench.user.busyLooks = 3
        var before = Bench.old
        for round in 1...200 {
            try bench.rotate("v\(round)")
            let new = try #require(try bench.password(.current))
            #expect(bench.user.passwords == [new, before])
            before = new
        }
        #expect(bench.user.refusals == 0)
    }

    /// As a process that is killed at each request in turn, before and behind its effect: another one
    /// goes on, and at no moment has the secret a password that the user has not.
    @Test(arguments: Breakpoint.Place.allCases, [false, true])
    func aRotationThatEndsAnywhereIsFinishedByTheNext(
        _ place: Breakpoint.Place, hasEndpoint: Bool
    ) throws {
        var request = 0
        var isWhole = false
        while !isWhole {
            let bench = Bench()
            bench.hasEndpoint = hasEndpoint
            bench.user.busyLooks = 2
            bench.breakpoint.set(at: request, place)
            do throws(RotationFailure) {
                try bench.rotate()
                isWhole = true
            } catch {
                #expect(error == Breakpoint.failure)
            }
            #expect(try bench.secretWorks(), "request \(request)")
            bench.breakpoint.set(at: nil)
            try bench.rotate()
            let new = try #require(try bench.password(.current))
            #expect(bench.user.passwords == [new, Bench.old], "request \(request)")
            // It made no second version.
            #expect(bench.store.values.count == 2)
            request += 1
        }
        #expect(request > 15)
    }

    /// The same with one more end in what goes on.
    @Test func twoEndsInARowAreNoneTooMany() throws {
        for first in 0..<20 {
            for second in 0..<20 {
                let bench = Bench()
                for (number, place) in [(first, Breakpoint.Place.after), (second, .after)] {
                    bench.breakpoint.set(at: number, place)
                    do throws(RotationFailure) { try bench.rotate() } catch {}
                    #expect(try bench.secretWorks())
                }
                bench.breakpoint.set(at: nil)
                try bench.rotate()
                #expect(bench.user.passwords == [try bench.password(.current), Bench.old])
            }
        }
    }

    @Test func stepsThatWereDoneChangeNothing() throws {
        let bench = Bench()
        try bench.rotate()
        let (passwords, stages) = (bench.user.passwords, bench.store.stages)
        bench.notes = []
        try bench.rotate()
        #expect(bench.user.passwords == passwords)
        #expect(bench.user.changes.count == 1)
        #expect(bench.store.stages == stages)
        #expect(bench.notes.dropLast(0).contains { $0.kind == .unchanged })
    }

    @Test func aUserThatIsBeingChangedIsWaitedFor() throws {
        let bench = Bench()
        bench.user.busyLooks = 5
        bench.user.racesLost = 2
        try bench.rotate()
        #expect(try bench.secretWorks())
        #expect(bench.time.elapsed > .seconds(3))
        #expect(bench.notes.contains { $0.kind == .waiting })
    }

    @Test func waitingEndsAndNothingIsLost() throws {
        let bench = Bench()
        bench.user.busyLooks = 10_000
        bench.settings.longestWait = .seconds(60)
        let failure = #expect(throws: RotationFailure.self) { try bench.rotate() }
        #expect(failure?.kind == .timedOut)
        #expect(bench.time.elapsed <= .seconds(60))
        #expect(bench.time.elapsed > .seconds(30))
        #expect(try bench.secretWorks())
    }

    @Test func aDeadlineIsKeptThatIsSoonerThanTheLongestWait() throws {
        let bench = Bench()
        bench.user.busyLooks = 10_000
        bench.settings.deadline = Monotonic(nanoseconds: 1) + .seconds(5)
        let failure = #expect(throws: RotationFailure.self) { try bench.rotate() }
        #expect(failure?.kind == .timedOut)
        #expect(bench.time.elapsed <= .seconds(5))
    }

    @Test func aPasswordThatTheServerRefusesIsNotMadeCurrent() throws {
        let bench = Bench()
        for step in [RotationStep.createSecret, .setSecret] { try bench.rotation().perform(step) }
        bench.user.passwords = [Bench.old]
        let failure = #expect(throws: RotationFailure.self) {
            try bench.rotation().perform(.testSecret)
        }
        #expect(failure?.kind == .denied)
        #expect(failure?.description.contains("WRONGPASS") == true)
        #expect(try bench.password(.current) == Bench.old)
    }

    @Test func nothingIsChangedWhenTheServerCannotBeReached() throws {
        let bench = Bench()
        bench.user.isUnreachable = true
        let failure = #expect(throws: RotationFailure.self) { try bench.rotate() }
        #expect(failure?.kind == .unavailable)
        #expect(bench.user.passwords == [Bench.old])
    }

    @Test func thePasswordThatIsInUseIsKeptAlsoIfItIsAWSPREVIOUS() throws {
        let bench = Bench()
        bench.store.values["v-by-hand"] =
            #"{"username": "app", "password": "never-was-set-anywhere"}"#
        bench.store.move(.current, to: "v-by-hand")
        bench.store.move(.previous, to: "v0")
        try bench.rotate()
        #expect(bench.user.passwords == [try bench.password(.current), Bench.old])
        #expect(bench.notes.contains { $0.kind == .warning && $0.message.contains("AWSPREVIOUS") })
    }

    @Test func aPasswordThatTheServiceCannotHaveIsNotSentToIt() throws {
        let bench = Bench(secret: #"{"username": "app", "password": "short"}"#)
        try bench.rotate()
        #expect(bench.user.passwords == [try bench.password(.current)])
        #expect(bench.notes.contains { $0.kind == .warning })
    }

    @Test func aPendingPasswordOfSomebodyElseIsCheckedBeforeItIsSet() throws {
        let bench = Bench()
        bench.store.values["v1"] = #"{"username": "app", "password": "with,a,comma,in,it,x"}"#
        bench.store.move(.pending, to: "v1")
        let failure = #expect(throws: RotationFailure.self) { try bench.rotate() }
        #expect(failure?.kind == .unusable)
        #expect(failure?.description.contains("comma") == false)
        #expect(try bench.rotation().problemWithPending() != nil)
        #expect(bench.user.passwords == [Bench.old])
        // With another token it goes.
        try bench.rotate("v2")
        #expect(try bench.secretWorks())
    }

    @Test func aPendingVersionOfAnotherUserIsRefused() throws {
        let bench = Bench()
        bench.store.values["v1"] = #"{"username": "root", "password": "good-enough-0123456"}"#
        bench.store.move(.pending, to: "v1")
        let failure = #expect(throws: RotationFailure.self) { try bench.rotate() }
        #expect(failure?.kind == .unusable)
    }

    @Test func namesMustAgree() throws {
        let bench = Bench()
        bench.settings.userName = "somebody"
        let failure = #expect(throws: RotationFailure.self) { try bench.rotate() }
        #expect(failure?.kind == .unusable)
        #expect(bench.store.values.count == 1)
    }

    @Test func anotherRotationThatTookOverIsNoticed() throws {
        let bench = Bench()
        try bench.rotation("v1").perform(.createSecret)
        try bench.rotation("v2").perform(.createSecret)
        for step in RotationStep.rotation {
            let failure = #expect(throws: RotationFailure.self) {
                try bench.rotation("v1").perform(step)
            }
            #expect(failure?.kind == .superseded)
        }
        #expect(try bench.secretWorks())
    }

    @Test func droppingLeavesTheNewPasswordAlone() throws {
        let bench = Bench()
        try bench.rotate()
        try bench.rotation().perform(.dropPrevious)
        #expect(bench.user.passwords == [try bench.password(.current)])
        try bench.rotation().perform(.dropPrevious)
        #expect(try bench.secretWorks())
    }

    @Test func nothingIsDroppedWhileAnotherRotationIsUnderWay() throws {
        let bench = Bench()
        try bench.rotate()
        try bench.rotation("v2").perform(.createSecret)
        let passwords = bench.user.passwords
        let failure = #expect(throws: RotationFailure.self) {
            try bench.rotation().perform(.dropPrevious)
        }
        #expect(failure?.kind == .superseded)
        #expect(bench.user.passwords == passwords)
    }

    @Test func nothingIsDroppedForAPasswordThatDoesNotLogIn() throws {
        let bench = Bench()
        try bench.rotate()
        bench.user.passwords = ["set-by-hand-0123456789"]
        let failure = #expect(throws: RotationFailure.self) {
            try bench.rotation().perform(.dropPrevious)
        }
        #expect(failure?.kind == .denied)
        #expect(bench.user.passwords == ["set-by-hand-0123456789"])
    }

    @Test func aDryRunChangesNothing() throws {
        let bench = Bench()
        bench.settings.isDryRun = true
        for step in RotationStep.allCases { try bench.rotation().perform(step) }
        #expect(bench.user.changes.isEmpty)
        #expect(bench.store.values.count == 1)
        #expect(bench.notes.count == 5)
        #expect(bench.notes.allSatisfy { $0.kind == .planned })
    }

    @Test func noNoteAndNoFailureHasAPassword() throws {
        let bench = Bench()
        try bench.rotate()
        let new = try #require(try bench.password(.current))
        for note in bench.notes {
            #expect(!note.message.contains(new) && !note.message.contains(Bench.old))
        }
    }
}

/// What Secrets Manager does: it makes the version, and names it.
@Suite struct ManagedRotationTests {
    private func bench() -> Bench {
        let bench = Bench()
        bench.settings.isManaged = true
        bench.store.move(.pending, to: "v1")
        return bench
    }

    @Test func aVersionWithoutAValueIsFilled() throws {
        let bench = bench()
        try bench.rotate()
        #expect(try bench.secretWorks())
        #expect(bench.store.stages["v1"]?.contains("AWSCURRENT") == true)
    }

    @Test func aSecretThatIsNotToBeRotatedIsRefused() throws {
        let bench = bench()
        bench.store.isRotationEnabled = false
        let failure = #expect(throws: RotationFailure.self) { try bench.rotate() }
        #expect(failure?.kind == .unusable)
    }

    @Test func aTokenThatIsNoVersionIsRefused() throws {
        let bench = bench()
        let failure = #expect(throws: RotationFailure.self) { try bench.rotate("v7") }
        #expect(failure?.kind == .unusable)
        #expect(bench.store.values.count == 1)
    }

    /// RotateImmediately=false: only testSecret, of a version that is removed again.
    @Test func aTestAloneNeedsNoPassword() throws {
        let bench = bench()
        try bench.rotation().perform(.testSecret)
        #expect(bench.notes.map(\.kind) == [.done])
        #expect(bench.user.changes.isEmpty)
        bench.user.passwords = ["another-0123456789ab"]
        bench.notes = []
        try bench.rotation().perform(.testSecret)
        #expect(bench.notes.map(\.kind) == [.warning])
        bench.user.isUnreachable = true
        let failure = #expect(throws: RotationFailure.self) {
            try bench.rotation().perform(.testSecret)
        }
        #expect(failure?.kind == .unavailable)
    }

    @Test func stepsOutOfOrderAreRefusedAndChangeNothing() throws {
        for step in [RotationStep.setSecret, .finishSecret] {
            let bench = bench()
            let failure = #expect(throws: RotationFailure.self) {
                try bench.rotation().perform(step)
            }
            #expect(failure?.kind == .unusable)
            #expect(try bench.password(.current) == Bench.old)
        }
    }
}
