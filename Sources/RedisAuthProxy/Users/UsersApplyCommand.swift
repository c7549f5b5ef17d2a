import AWS
import ArgumentParser
import Configuration
import Glibc
import Identity
import Rotation

/// `users apply`: declared users made so where they are.
struct UsersApplyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apply",
        abstract: "Create or change the declared users on their servers or at AWS.",
        discussion: """
            Looks at each user that declares an access_string (or at those named), prints what it \
            would be allowed more and less and what would change about its passwords, asks, and \
            changes it. What is as declared already is left alone: a second run sends no change. \
            Access strings are compared by what they amount to. No password is ever shown.

            ON SERVERS OF ONE'S OWN
              An administrator (the flags of rotate) changes a user with one ACL SETUSER, which takes \
            effect as a whole. Connections of the user stay logged in and have the new permissions \
            from then on; a subscriber of a channel that is no longer allowed is disconnected by the \
            server. Written down with ACL SAVE or CONFIG REWRITE; a warning says if it cannot be. The \
            administrator needs +acl|getuser +acl|setuser +acl|save +config|rewrite, and is never \
            changed itself. Servers do not tell each other of users: name replicas with --server.

            AT AWS
              Upstreams whose names are those of ElastiCache or MemoryDB, or --service: CreateUser \
            and ModifyUser or UpdateUser, waiting while a user is modifying. A new user must be \
            added to a user group or ACL by hand. Whether a password is set already is found out \
            by a login. Needs elasticache:DescribeUsers, CreateUser and ModifyUser, or \
            memorydb:DescribeUsers, CreateUser and UpdateUser, on the users.

            PASSWORDS
              A user gets the password of its credentials. Others that it has are taken away, but \
            for those of AWSPENDING and AWSPREVIOUS of its secret, which a rotation needs; \
            --keep-other-passwords keeps all.

            EXIT CODES
              0   applied; or nothing was to be done; or --dry-run
              64  the command line cannot be understood; or changes, no terminal and no --yes
              69  a server, a secret or AWS is not there or cannot be reached
              75  not finished in time, not confirmed, or changed by somebody else meanwhile
              77  AWS or a server refused the request or the login
              78  the configuration, a user or a flag is not what it must be

            EXAMPLES
              redis-auth-proxy users apply --config proxy.yaml --dry-run \\
                  --admin-user admin --admin-password-file /run/secrets/admin
              redis-auth-proxy users apply --config proxy.yaml --yes app reports
            """)

    @OptionGroup var file: ConfigurationFile
    @OptionGroup var admin: AdministratorOptions

    @Option(
        help: ArgumentHelp(
            "A server in place of the upstream's address, rediss://HOST[:PORT], for users of one"
                + " upstream. Repeatable.", valueName: "url"))
    var server: [String] = []

    @Option(
        help: ArgumentHelp(
            "Whose users they are, if names of upstreams do not tell: elasticache, memorydb.",
            valueName: "service"))
    var service: IAMSource.Service?

    @Option(
        help: ArgumentHelp(
            "The region, if neither credentials nor the AWS settings say it.",
            valueName: "region"))
    var region: String?

    @Option(help: ArgumentHelp("The profile in the shared AWS files.", valueName: "name"))
    var profile: String?

    @Option(
        help: ArgumentHelp(
            "ElastiCache's id of a user, if it is not its name: KEY=ID, KEY as in the"
                + " configuration. Repeatable.", valueName: "key=id"))
    var userID: [String] = []

    @Option(help: ArgumentHelp("For users made at ElastiCache: redis, valkey.", valueName: "name"))
    var engine = CacheEngine.redis

    @Flag(help: "Leave users the passwords that are not declared.")
    var keepOtherPasswords = false

    @Flag(help: "At AWS: set passwords also where nothing shows that they differ.")
    var setPasswords = false

    @Option(
        help: ArgumentHelp(
            "How long to wait for a user that is being changed.", valueName: "duration"))
    var wait = DurationArgument(.seconds(600))

    @Flag(help: "Say what would be changed, and change nothing.")
    var dryRun = false

    @Flag(help: "Ask nothing.")
    var yes = false

    @Flag(help: "One JSON object for each thing that happens, a line each.")
    var json = false

    @Argument(help: "Users, by their keys in the configuration.")
    var users: [String] = []

    func validate() throws {
        if let region, !AWSNames.isRegion(region) {
            throw ValidationError(
                "--region: wanted a region such as us-east-1, got \(escaped(region)).")
        }
        for text in userID where text.split(separator: "=").count != 2 {
            throw ValidationError("--user-id: wanted KEY=ID, got \(escaped(text)).")
        }
        guard !dryRun || !yes else {
            throw ValidationError("--dry-run changes nothing that --yes could confirm.")
        }
    }

    func run() throws {
        let settings = try file.settings()
        let chosen = try chosen(settings)
        // An interrupt ends it: what was begun is finished the next time.
        try prepareProcess(blocking: [])
        let report = UsersReport(isJSON: json)
        do {
            try apply(chosen, settings, report)
        } catch let error as RotationFailure {
            complain("users apply: \(escaped("\(error)"))")
            report.end("failed", "\(error)")
            throw Exit(error.kind).code
        }
    }

    /// Those named, or all that declare an access string.
    private func chosen(_ settings: Settings) throws -> [UserIndex] {
        let names = settings.users.map(\.name)
        for name in users + userID.map({ String($0.split(separator: "=")[0]) })
        where !names.contains(name) {
            throw ValidationError(
                "wanted one of the users \(names.joined(separator: ", ")), got \(escaped(name)).")
        }
        return settings.users.indices.filter { index in
            users.isEmpty
                ? settings.users[index].accessString != nil
                : users.contains(settings.users[index].name)
        }.map { UserIndex($0) }
    }

    private func apply(
        _ chosen: [UserIndex], _ settings: Settings, _ report: UsersReport
    ) throws {
        let places = UserPlaces(self, settings)
        var accounts: [any DeclaredAccount] = []
        for index in chosen { accounts += try places.accounts(of: index, report) }
        try places.checkForContradictions(accounts)
        // All of them are looked at before the first is changed.
        var planned: [(account: any DeclaredAccount, change: any UserChange)] = []
        for account in accounts {
            let change = try account.plan()
            report.plan(account, change)
            if !change.isEmpty { planned.append((account, change)) }
        }
        guard !planned.isEmpty else { return report.end("unchanged", "nothing to change") }
        guard !dryRun else {
            return report.end(
                "planned", "\(counted(planned.count, "change")) to be made; nothing was changed")
        }
        try confirm(planned.count, report)
        for (account, change) in planned {
            let warning = try account.carryOut(change)
            report.done(account, isNew: change.isNew)
            if let warning { report.warning(account, warning) }
        }
        report.end("applied", "\(counted(planned.count, "change")) made")
    }

    private func confirm(_ count: Int, _ report: UsersReport) throws {
        guard !yes else { return }
        guard !json, isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1 else {
            report.end("refused", "nothing was changed: --yes is not given")
            throw ValidationError(
                "\(counted(count, "change")) to be confirmed, and nobody to ask: give --yes, or"
                    + " --dry-run to see them alone.")
        }
        print("Make \(counted(count, "change"))? [y/N] ", terminator: "")
        fflush(nil)
        let answer = readLine()?.lowercased() ?? ""
        guard ["y", "yes"].contains(answer) else {
            report.end("refused", "nothing was changed")
            throw Exit.unfinished.code
        }
    }
}

extension IAMSource.Service: ExpressibleByArgument {}

/// The engine of a user that is made at ElastiCache: a user of Redis may be in groups of both.
enum CacheEngine: String, ExpressibleByArgument, CaseIterable {
    case redis
    case valkey
}
