import AWS
import ArgumentParser
import Configuration
import Identity

/// `policy`: what AWS must allow for the configuration at hand.
struct PolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy",
        abstract: "Print the IAM policy that a configuration needs.",
        discussion: """
            One document for the role, container or machine that the proxy runs as, with no more than \
            is needed: Connect on each cache and on each user of iam, GetSecretValue on each secret \
            of secrets_manager, and with --kms-key kms:Decrypt on that key for those secrets. Nothing \
            is connected to. Only the document is on standard output, and nothing if nothing of AWS's \
            is needed.

            What is not known is written as \(AccessPolicy.accountPlaceholder) or \
            \(AccessPolicy.regionPlaceholder), and said on standard error. The region is the \
            setting's, else --region, else that of AWS_REGION, AWS_DEFAULT_REGION or the AWS profile. \
            A secret that is given by its name, or by an ARN without its end, ends in -??????, which \
            stands for the six characters that AWS puts there.

            What changes users needs other permissions, and should have a role of its own: --for rotate \
            is about the secrets of the configuration and the users that they are of, --for users-apply \
            about all users with an access_string. An administrator's secret is not in the \
            configuration: whoever reads it also needs GetSecretValue on it.

            Permissions of one role add up: in a document for several users of several caches each \
            user is allowed at each. For a role per user, ask with --user.

            EXAMPLES
              redis-auth-proxy policy --config /etc/redis-auth-proxy.yaml --account 123456789012
              redis-auth-proxy policy --config proxy.yaml --user app > policy.json
              redis-auth-proxy policy --config proxy.yaml --for rotate > rotation.json
              aws iam put-role-policy --role-name app --policy-name redis-auth-proxy \\
                  --policy-document file://policy.json

            EXIT CODES
              0   the document is complete, or has placeholders, or is not needed
              64  the command line cannot be understood
              78  the configuration or AWS's shared files cannot be used
            """)

    @OptionGroup var file: ConfigurationFile

    /// What is to be allowed.
    enum Purpose: String, ExpressibleByArgument, CaseIterable {
        case run
        case rotate
        case usersApply = "users-apply"
    }

    @Option(name: .customLong("for"), help: ArgumentHelp("Who needs it.", valueName: "command"))
    var purpose = Purpose.run

    @Option(help: ArgumentHelp("The account of the caches and secrets.", valueName: "id"))
    var account: String?

    @Option(
        help: ArgumentHelp("The region of whatever the file gives none.", valueName: "region"))
    var region: String?

    @Option(
        help: ArgumentHelp(
            "A key of your own that secrets are encrypted with. Repeatable.", valueName: "arn"))
    var kmsKey: [String] = []

    @Option(
        help: ArgumentHelp(
            "Only this user of the configuration, by its key there. Repeatable.",
            valueName: "name"))
    var user: [String] = []

    func validate() throws {
        if let account {
            // AWS General Reference: an account's id has 12 digits.
            guard account.utf8.count == 12, account.utf8.allSatisfy({ (0x30...0x39).contains($0) })
            else {
                throw ValidationError("--account: wanted 12 digits, got \(escaped(account)).")
            }
        }
        if let region, !AWSNames.isRegion(region) {
            throw ValidationError(
                "--region: wanted a region such as us-east-1, got \(escaped(region)).")
        }
        for key in kmsKey {
            let parts = key.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 6, parts[0] == "arn", parts[2] == "kms",
                parts[5].hasPrefix("key/")
            else {
                throw ValidationError(
                    "--kms-key: wanted arn:aws:kms:REGION:ACCOUNT:key/ID, got \(escaped(key)).")
            }
        }
    }

    func run() throws {
        let settings = try file.settings()
        let names = settings.users.map(\.name)
        for name in user where !names.contains(name) {
            throw ValidationError(
                "--user: wanted one of \(names.joined(separator: ", ")), got \(escaped(name)).")
        }
        var scope = AccessPolicy.Scope()
        scope.account = account
        scope.region = try region ?? regionOfAWS()
        scope.keys = kmsKey
        let users = settings.users.filter { user.isEmpty || user.contains($0.name) }
        let policy: AccessPolicy
        switch purpose {
        case .run:
            policy = AccessPolicy(users.map { ($0.userName, $0.credentials) }, in: scope)
        case .rotate:
            policy = AccessPolicy(.rotation, of: users.map { changed($0, settings) }, in: scope)
        case .usersApply:
            let declared = users.filter { $0.accessString != nil }
            policy = AccessPolicy(.users, of: declared.map { changed($0, settings) }, in: scope)
        }
        guard !policy.isEmpty else {
            let reason =
                switch purpose {
                case .run: "no credential comes from AWS"
                case .rotate: "no credential is a secret of Secrets Manager"
                case .usersApply: "no user with an access_string is one of AWS's or has a secret"
                }
            return complain("policy: \(reason): nothing must be allowed")
        }
        say(String(policy.json.dropLast()))
        explain(policy)
    }

    private func changed(
        _ user: UserSettings, _ settings: Settings
    ) -> AccessPolicy.ChangedUser {
        var service = managingService(host: settings.upstreams[user.upstream].address.host)
        if case .iam(let iam) = user.credentials { service = iam.service }
        return AccessPolicy.ChangedUser(
            name: user.userName, source: user.credentials, service: service)
    }

    /// What the shared files are needed for here is the region alone; an instance is not asked.
    private func regionOfAWS() throws -> String? {
        do throws(AWSFailure) {
            guard let region = try AWSSettings(.ofProcess()).region else { return nil }
            guard AWSNames.isRegion(region) else {
                throw AWSFailure(
                    .refused, "region: wanted a region such as us-east-1, got \"\(region)\"")
            }
            return region
        } catch {
            complain("policy: \(error.reason)")
            throw Exit.configuration.code
        }
    }

    private func explain(_ policy: AccessPolicy) {
        if policy.contains(AccessPolicy.accountPlaceholder) {
            complain(
                "policy: \(AccessPolicy.accountPlaceholder) stands for the account's id: give"
                    + " --account")
        }
        if policy.contains(AccessPolicy.regionPlaceholder) {
            complain(
                "policy: \(AccessPolicy.regionPlaceholder) stands for the region: give --region, or"
                    + " region in the configuration")
        }
        if policy.readsSecrets, kmsKey.isEmpty {
            complain(
                "policy: a secret that is encrypted with a key of your own also takes"
                    + " \(purpose == .rotate ? "kms:Decrypt and kms:GenerateDataKey" : "kms:Decrypt"):"
                    + " give --kms-key")
        }
    }
}
