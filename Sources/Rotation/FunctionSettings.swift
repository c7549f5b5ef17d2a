// The environment of a rotation function: the variables of AWS's own function for ElastiCache, with
// their meaning, and a few of ours for what that one does not do.
//
//   SECRETS_MANAGER_ENDPOINT                   in place of the region's
//   SECRET_ARN                                 the one secret that may be rotated
//   USER_NAME                                  the name that the secret must have
//   PASSWORD_LENGTH, EXCLUDE_CHARACTERS        of new passwords
//   MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS     for a user that is being changed
//   WAITING_RETRY_INTERVAL_IN_SECONDS          the longest pause between two looks at it
//   REDIS_AUTH_PROXY_ROTATE_SERVER …           where to log in, see RotationFunction
//
// AWS's function wants the first three; here they are checked if they are set.
//
// Source: aws-samples/aws-secrets-manager-rotation-lambdas, SecretsManagerElasticacheUserRotation.

package import AWS

/// What a function's environment says about each rotation.
package struct FunctionSettings: Sendable {
    /// What the end of an invocation takes: to say that it failed.
    static let reserve: Duration = .seconds(2)

    package let secretsManagerEndpoint: String?
    package let secretARN: String?
    package let userName: String?
    package let recipe: PasswordRecipe
    package let longestWait: Duration
    package let longestPause: Duration

    /// - Parameter variable: a variable's value; nil or empty: it is not set.
    /// - Throws: `unusable`, naming the variable.
    package init(_ variable: (String) -> String?) throws(RotationFailure) {
        func value(_ name: String) -> String? {
            variable(name).flatMap { $0.isEmpty ? nil : $0 }
        }
        func number(
            _ name: String, _ usual: Int, _ range: ClosedRange<Int>
        ) throws(RotationFailure) -> Int {
            guard let text = value(name) else { return usual }
            guard let number = Int(text), range.contains(number) else {
                throw RotationFailure(
                    .unusable,
                    "\(name): wanted a number from \(range.lowerBound) to \(range.upperBound), got"
                        + " \"\(text.prefix(40))\"")
            }
            return number
        }
        secretsManagerEndpoint = value("SECRETS_MANAGER_ENDPOINT")
        secretARN = value("SECRET_ARN")
        userName = value("USER_NAME")
        recipe = try PasswordRecipe(
            length: try number("PASSWORD_LENGTH", 32, PasswordRules.aws.lengths),
            excluding: value("EXCLUDE_CHARACTERS") ?? "")
        // 900: a function runs no longer.
        longestWait = .seconds(
            try number("MAX_WAITING_TIME_FOR_ACTIVE_IN_SECONDS", 600, 1...900))
        longestPause = .seconds(try number("WAITING_RETRY_INTERVAL_IN_SECONDS", 10, 1...300))
    }

    /// - Parameter deadline: when Lambda ends the invocation.
    package func rotation(until deadline: Monotonic?) -> RotationSettings {
        var settings = RotationSettings()
        settings.recipe = recipe
        settings.userName = userName
        settings.isManaged = true
        settings.longestWait = longestWait
        settings.longestPause = longestPause
        settings.deadline = deadline.map { $0 + (.zero - Self.reserve) }
        return settings
    }

    /// Throws `denied` if the function is for another secret.
    package func check(_ request: RotationRequest) throws(RotationFailure) {
        guard let secretARN, secretARN != request.secretID else { return }
        throw RotationFailure(
            .denied,
            "event: wanted the secret of SECRET_ARN, \(secretARN), got"
                + " \(request.secretID)",
            advice: "give the secret this function, or the function that secret")
    }
}
