import AWS
import Identity
import Rotation
import Testing

@Suite struct FunctionTests {
    @Test func anEventIsRead() throws {
        let request = try RotationRequest(
            event: Secret(
                #"{"Step":"setSecret","SecretId":"arn:s","ClientRequestToken":"t","RotationToken":"r","more":[1]}"#
            ))
        #expect(request.step == .setSecret)
        #expect(request.secretID == "arn:s")
        #expect(request.token == "t")
        #expect(request.rotationToken?.text == "r")
    }

    @Test(arguments: [
        "", "{", "[]", "null", #"{"Step":"setSecret"}"#,
        #"{"Step":"dropPrevious","SecretId":"a","ClientRequestToken":"t"}"#,
        #"{"Step":7,"SecretId":"a","ClientRequestToken":"t"}"#,
        #"{"Step":"setSecret","SecretId":"","ClientRequestToken":"t"}"#,
    ])
    func whatIsNoEventIsRefused(_ text: String) {
        let failure = #expect(throws: RotationFailure.self) {
            try RotationRequest(event: Secret(text))
        }
        #expect(failure?.kind == .unusable)
    }

    @Test func noVariableIsNeeded() throws {
        let settings = try FunctionSettings { _ in nil }
        #expect(settings.longestWait == .seconds(600))
        #expect(settings.longestPause == .seconds(10))
        #expect(settings.recipe == PasswordRecipe())
        #expect(settings.secretARN == nil)
    }

    @Test func variablesOfAWSsFunctionAreRead() throws {
        let variables = [
            "SECRETS_MANAGER_ENDPOINT": "https://x", "SECRET_ARN": "arn:s", "USER_NAME": "app",
            "PASSWORD_LENGTH": "20", "EXCLUDE_CHARACTERS": "/@\"'\\",
            "MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS": "60",
            "WAITING_RETRY_INTERVAL_IN_SECONDS": "5",
        ]
        let settings = try FunctionSettings { variables[$0] }
        #expect(settings.secretsManagerEndpoint == "https://x")
        #expect(settings.userName == "app")
        #expect(settings.recipe.make().count == 20)
        #expect(settings.longestWait == .seconds(60))
        #expect(settings.longestPause == .seconds(5))
        let another = try RotationRequest(
            event: Secret(#"{"Step":"setSecret","SecretId":"arn:t","ClientRequestToken":"t"}"#))
        let failure = #expect(throws: RotationFailure.self) { try settings.check(another) }
        #expect(failure?.kind == .denied)
    }

    @Test(arguments: [
        ("PASSWORD_LENGTH", "15"), ("PASSWORD_LENGTH", "1e3"), ("PASSWORD_LENGTH", "-20"),
        ("MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS", "901"),
        ("WAITING_RETRY_INTERVAL_IN_SECONDS", "0"),
        ("WAITING_RETRY_INTERVAL_IN_SECONDS", "99999999999999999999"),
    ])
    func aVariableThatCannotBeIsNamed(_ name: String, _ value: String) {
        let failure = #expect(throws: RotationFailure.self) {
            try FunctionSettings { $0 == name ? value : nil }
        }
        #expect(failure?.kind == .unusable)
        #expect(failure?.reason.contains(name) == true || name == "PASSWORD_LENGTH")
    }

    @Test func aDeadlineLeavesTimeToTellOfIt() throws {
        let settings = try FunctionSettings { _ in nil }
        let end = Monotonic(nanoseconds: 60_000_000_000)
        #expect(settings.rotation(until: end).deadline == Monotonic(nanoseconds: 58_000_000_000))
        #expect(settings.rotation(until: nil).deadline == nil)
        #expect(settings.rotation(until: nil).isManaged)
    }

    @Test func whatAWSRefusesHasItsKind() {
        let kinds: [(String?, RotationFailure.Kind)] = [
            ("InvalidUserState", .busy), ("InvalidUserStateFault", .busy),
            ("UserNotFound", .unavailable), ("ResourceNotFoundException", .unavailable),
            ("AccessDeniedException", .denied), ("ResourceExistsException", .superseded),
            ("InvalidParameterValue", .unusable), (nil, .unusable),
        ]
        for (code, kind) in kinds {
            #expect(RotationFailure(AWSFailure(.refused, "x", code: code)).kind == kind)
        }
        #expect(RotationFailure(AWSFailure(.throttled, "x")).kind == .unavailable)
    }
}
