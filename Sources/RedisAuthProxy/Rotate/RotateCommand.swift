import AWS
import ArgumentParser
import Configuration
import Foundation
import Identity
import Rotation
import Transport

/// `rotate`: a new password for the user of a secret, with nobody noticing.
struct RotateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rotate",
        abstract: "Give the user of a secret in Secrets Manager a new password.",
        discussion: """
            Makes a new password, stores it in a new version of the secret, gives it to the user \
            beside the one that it has, logs in with it, and makes the version current. Both \
            passwords are good afterwards, so that whoever read the secret before goes on; \
            --drop-previous ends that after a grace period.

            The steps are those of Secrets Manager: createSecret (the version, labelled \
            AWSPENDING), setSecret (the user's passwords), testSecret (a login), finishSecret \
            (AWSCURRENT goes to the version). Each looks first whether it was done. A rotation that \
            was interrupted, at any point, goes on when the command is given again.

            WHOSE PASSWORD
              The secret is a JSON object with username and password; other keys stay as they are.
              user_arn in the secret or --user-arn: a user of ElastiCache or MemoryDB. --server, or \
            host and port in the secret, is where its login is tried out; without a server no login \
            is tried.
              Otherwise the user is one of the servers that --server or the secret names, each of \
            which is told with ACL SETUSER by an administrator: --admin-user, --admin-secret, or \
            masterarn in the secret. Name every server, replicas too: they do not tell each other. \
            What is set is written down with ACL SAVE or CONFIG REWRITE; a warning says if it cannot \
            be. The administrator needs +acl|getuser +acl|setuser +acl|save +config|rewrite.

            Passwords are \(PasswordRules.aws.lengths.lowerBound) to \
            \(PasswordRules.aws.lengths.upperBound) letters, digits and -._~ and are checked \
            against the service's rules before they are stored. None is ever shown.

            AWS credentials and the region are found as token finds them. They need, on the secret, \
            secretsmanager:DescribeSecret, GetSecretValue, PutSecretValue and \
            UpdateSecretVersionStage; on the user elasticache:DescribeUsers and ModifyUser, or \
            memorydb:DescribeUsers and UpdateUser; and kms:Decrypt and GenerateDataKey if the secret \
            has a key of its own.

            Two rotations of one secret at the same time do not harm it, but one of them fails.

            AS A LAMBDA FUNCTION
              Started without arguments where AWS_LAMBDA_RUNTIME_API is set, the program is the \
            rotation function of Secrets Manager. The manual's page Rotation says how to set it up.

            EXIT CODES
              0   rotated; or nothing was to be done
              64  the command line cannot be understood
              69  the secret, the user or a server is not there or cannot be reached
              75  not finished in time, or another rotation took over: give the command again
              77  AWS or a server refused the request or the login
              78  the secret, the user or a flag is not what it must be

            EXAMPLES
              redis-auth-proxy rotate --secret production/cache/app --dry-run
              redis-auth-proxy rotate --secret production/cache/app \\
                  --server rediss://master.my-cache.abc123.use1.cache.amazonaws.com
              redis-auth-proxy rotate --secret production/cache/app --drop-previous --grace 1h
              redis-auth-proxy rotate --secret internal/redis/app \\
                  --server rediss://redis-1.example --server rediss://redis-2.example \\
                  --ca-file /etc/redis/ca.crt \\
                  --admin-user rotator --admin-password-file /run/secrets/rotator
              redis-auth-proxy rotate --secret production/cache/app --step dropPrevious
            """)

    @Option(help: ArgumentHelp("The secret's name or ARN.", valueName: "id"))
    var secret: String

    @Option(
        help: ArgumentHelp(
            "The secret's region, if its ARN and the AWS settings do not say it.",
            valueName: "region"))
    var region: String?

    @Option(help: ArgumentHelp("The profile in the shared AWS files.", valueName: "name"))
    var profile: String?

    @Option(
        help: ArgumentHelp(
            "The user of ElastiCache or MemoryDB, if the secret has no user_arn.",
            valueName: "arn"))
    var userArn: String?

    @Option(
        help: ArgumentHelp(
            "The user's name: needed if the secret has none, otherwise it must be this one.",
            valueName: "name"))
    var user: String?

    @Option(
        help: ArgumentHelp("A server, rediss://HOST[:PORT]. Repeatable.", valueName: "url"))
    var server: [String] = []

    @Option(
        help: ArgumentHelp(
            "The name in the servers' certificates, if not the host.", valueName: "name"))
    var serverName: String?

    @Option(
        help: ArgumentHelp(
            "Certificates to trust in place of the system's.", valueName: "file"))
    var caFile: String?

    @Option(
        help: ArgumentHelp(
            "A client's certificate, for servers that want one.", valueName: "file"))
    var certificateFile: String?

    @Option(help: ArgumentHelp("The client certificate's key.", valueName: "file"))
    var keyFile: String?

    @OptionGroup var admin: AdministratorOptions

    @Option(help: ArgumentHelp("Where in the secret the name is.", valueName: "key"))
    var usernameKey = "username"

    @Option(help: ArgumentHelp("Where in the secret the password is.", valueName: "key"))
    var passwordKey = "password"

    @Option(help: ArgumentHelp("Characters of a new password.", valueName: "number"))
    var passwordLength = 32

    @Option(
        help: ArgumentHelp("Characters that it must not have.", valueName: "characters"))
    var excludeCharacters = ""

    @Option(
        help: ArgumentHelp(
            "How long to wait in a step for a user that is being changed.", valueName: "duration"))
    var wait = DurationArgument(.seconds(600))

    @Flag(help: "In the end, leave the user the new password alone.")
    var dropPrevious = false

    @Option(
        help: ArgumentHelp(
            "How long before that the one before stays good: longer than any reader of the secret"
                + " keeps it.", valueName: "duration"))
    var grace = DurationArgument(.seconds(600))

    @Option(
        help: ArgumentHelp(
            "Only this step: \(RotationStep.allCases.map(\.rawValue).joined(separator: ", ")).",
            valueName: "step"))
    var step: RotationStep?

    @Option(
        help: ArgumentHelp(
            "The version to rotate to: a client request token of 32 to 64 characters. Without it,"
                + " the one that an earlier rotation began, or a new one.", valueName: "id"))
    var version: String?

    @Flag(help: "Say what would be done, and change nothing.")
    var dryRun = false

    @Flag(help: "One JSON object for each thing that happens, a line each.")
    var json = false

    func validate() throws {
        guard (certificateFile == nil) == (keyFile == nil) else {
            throw ValidationError("--certificate-file and --key-file go together.")
        }
        if let version, !(32...64).contains(version.utf8.count) {
            throw ValidationError("--version wants 32 to 64 characters.")
        }
        guard step == nil || !dropPrevious else {
            throw ValidationError(
                "--drop-previous is for a whole rotation: use --step dropPrevious.")
        }
    }

    func run() throws {
        // An interrupt ends it: what was begun is finished the next time.
        try prepareProcess(blocking: [])
        let report = RotationReport(isJSON: json)
        do throws(RotationFailure) {
            try rotate(report)
        } catch {
            complain("rotate: \(escaped("\(error)"))")
            report.end("failed", "\(error)")
            throw Exit(error.kind).code
        }
    }

    private func rotate(_ report: RotationReport) throws(RotationFailure) {
        let access = try AWSAccess(profile: profile)
        let store = SecretsManagerStore(secret, region: try region(access), access: access)
        var settings = RotationSettings()
        settings.recipe = try PasswordRecipe(
            length: passwordLength, excluding: excludeCharacters)
        settings.userName = user
        settings.userNameKey = usernameKey
        settings.passwordKey = passwordKey
        settings.isDryRun = dryRun
        settings.longestWait = wait.duration
        let places = places(access)
        let rotation = { (token: String) in
            Rotation(
                store, token: token, settings: settings,
                target: { document throws(RotationFailure) in try places.target(document) },
                note: { report.note($0) })
        }
        let (token, isResumed) = try token(store, rotation)
        report.begin(secret: secret, version: token, isResumed: isResumed)
        let whole = rotation(token)
        for step in step.map({ [$0] }) ?? RotationStep.rotation { try whole.perform(step) }
        if dropPrevious {
            if !dryRun {
                report.note(
                    RotationNote(
                        .dropPrevious, .waiting,
                        "the password before stays good for \(grace)"))
                RotationClock.system.wait(grace.duration)
            }
            try whole.perform(.dropPrevious)
        }
        report.end(dryRun ? "planned" : "rotated")
    }

    private func region(_ access: AWSAccess) throws(RotationFailure) -> String {
        guard let named = region ?? AWSNames.region(ofSecret: secret) else {
            return try access.region()
        }
        guard AWSNames.isRegion(named) else {
            throw RotationFailure(
                .unusable, "--region: wanted a region such as us-east-1, got \(escaped(named))")
        }
        return named
    }

    private func places(_ access: AWSAccess) -> RotationPlaces {
        var places = RotationPlaces(access: access)
        places.userARN = userArn
        places.userName = user
        places.serverURLs = server
        places.serverName = serverName
        places.tls = TLSSettings(
            caFile: caFile, certificateFile: certificateFile, keyFile: keyFile)
        places.administrator = admin.administrator
        return places
    }

    /// The version to rotate to, and whether it is there already.
    private func token(
        _ store: SecretsManagerStore, _ rotation: (String) -> Rotation
    ) throws(RotationFailure) -> (String, isResumed: Bool) {
        if let version { return (version, false) }
        let secret = try store.describe()
        if step == .dropPrevious, let current = secret.holder(of: .current) {
            return (current, false)
        }
        if let pending = secret.holder(of: .pending), pending != secret.holder(of: .current) {
            // One that cannot be finished loses its label to the new one.
            guard let problem = try rotation(pending).problemWithPending() else {
                return (pending, true)
            }
            complain("rotate: \(escaped(problem)): a new version takes its place")
        }
        return (UUID().uuidString.lowercased(), false)
    }
}

extension RotationStep: ExpressibleByArgument {}
