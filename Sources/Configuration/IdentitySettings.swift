// One entry of `identities`, from what is written to the rule that it means: names become numbers
// here, and what could never hold is refused.

import Identity

/// What stands in an entry of `identities`.
struct IdentitySettings: Section {
    var any = false
    var unixUser: String?
    var uid: UInt32?
    var unixGroup: String?
    var gid: UInt32?
    var source: AddressRange?
    var maxSessions: Int?

    static var defaults: IdentitySettings { IdentitySettings() }

    static var settings: [Setting<IdentitySettings>] {
        [
            .scalar("any", "true", nil, "Holds for every client. Stands alone.") {
                (word, root) throws(Unwanted) in
                guard try Bool(setting: word) else {
                    throw Unwanted(advice: "a rule that never holds can be left out")
                }
                root.any = true
            },
            .optionalText(
                "unix_user", \.unixUser, "a user's name",
                without: "It must exist when the proxy starts.",
                "Holds for clients of this user of the operating system, as the kernel attests over"
                    + " Unix sockets and loopback TCP."),
            .scalar(
                "uid", "a user's number", nil, "The same, by number."
            ) { (word, root) throws(Unwanted) in root.uid = try accountNumber(word) },
            .optionalText(
                "unix_group", \.unixGroup, "a group's name",
                without: "It must exist when the proxy starts.",
                "Holds for clients in this group, supplementary groups too. Over TCP the kernel"
                    + " attests the user alone: who is in the group is then what the group database"
                    + " said at the start."),
            .scalar(
                "gid", "a group's number", nil, "The same, by number."
            ) { (word, root) throws(Unwanted) in root.gid = try accountNumber(word) },
            .scalar(
                "source", "an IP address or a range such as 10.0.0.0/8", nil,
                "Holds for TCP clients from these addresses."
            ) { (word, root) throws(Unwanted) in
                do throws(AddressRange.Mistake) {
                    root.source = try AddressRange(word)
                } catch {
                    switch error {
                    case .notAnAddress: throw Unwanted(advice: "write the address in figures")
                    case .prefixTooLong:
                        throw Unwanted(
                            advice: "behind the / stands a number of bits, up to 32 or 128")
                    case .notTheFirst(let range):
                        throw Unwanted(advice: "did you mean \(range)?")
                    }
                }
            },
            .structure(
                "login", "a mapping with a name and a password's hash",
                "Holds once the client has logged in with AUTH or HELLO. Until then a later rule"
                    + " without a login decides; if none holds, the client may only log in."),
            .structure(
                "user", "the name of a user", isRequired: true,
                "The user that such a client becomes: a key under users."),
            .scalar(
                "max_sessions", "a number from 1 to 1000000", nil,
                "Clients that may be this at the same time. Without it: as many as there may be in"
                    + " all."
            ) { (word, root) throws(Unwanted) in
                let count = try Int(setting: word)
                guard (1...1_000_000).contains(count) else { throw Unwanted() }
                root.maxSessions = count
            },
        ]
    }

    /// Whether it says anything about the client but a login.
    var hasCondition: Bool {
        unixUser != nil || uid != nil || unixGroup != nil || gid != nil || source != nil
    }
}

/// What stands under `login`.
struct LoginSettings: Section {
    var name = "default"

    static var defaults: LoginSettings { LoginSettings() }

    static var settings: [Setting<LoginSettings>] {
        [
            .scalar(
                "name", "a name for AUTH", defaults.name,
                "The name that the client logs in with. A password without a name is for `default`."
            ) { (word, root) throws(Unwanted) in root.name = try aclUserName(word) },
            .structure(
                "password_scrypt", "a hash that hash-password has printed, or a list of them",
                "For passwords that people chose: scrypt in the form"
                    + " `$scrypt$ln=15,r=8,p=1$SALT$HASH`, in quotes."),
            .structure(
                "password_sha256", "64 hexadecimal digits, or a list of such",
                "For passwords that a program made: the SHA-256 of at least 32 random characters."),
            .structure(
                "password_file", "the path of a file, or a list of them",
                "A file that holds the password and nothing else; it is read at each attempt."),
        ]
    }
}

/// 65534 stands for every account that has no number in a user namespace, and -1 for none.
private func accountNumber(_ word: String) throws(Unwanted) -> UInt32 {
    let number = try Int(setting: word)
    guard let id = UInt32(exactly: number), id != .max else {
        throw Unwanted(advice: "numbers of accounts go from 0 to 4294967294")
    }
    guard id != overflowID else {
        throw Unwanted(
            advice: "65534 stands for accounts that have no number here, and is never matched")
    }
    return id
}

/// What the kernel shows in place of an account that has no number (user_namespaces(7)).
let overflowID: UInt32 = 65_534
