import Configuration

/// A configuration that is right; tests change one thing of it.
let good = """
    upstreams:
      cache:
        address: cache.example:6380
    users:
      app:
        upstream: cache
        credentials: { password_file: /run/secrets/app }
    listeners:
      - address: 127.0.0.1:6379
        identities:
          - { any: true, user: app }

    """

/// A system with few users and groups, whatever the machine has that the tests run on.
let fewAccounts = Accounts(
    user: { name in
        switch name {
        case "www-data": .found(33)
        case "cron": .found(200)
        case "nobody": .found(65_534)
        case "slow": .failed("Input/output error")
        default: .unknown
        }
    },
    group: { name in
        switch name {
        case "www-data": .found(33)
        case "staff": .found(50)
        case "nogroup": .found(65_534)
        default: .unknown
        }
    },
    members: { $0 == 50 ? [200, 201] : [] })

/// What becomes of a text; the file is called `c.yaml`.
func load(
    _ yaml: String, environment: [String: String] = [:], flags: [String: String] = [:],
    checksFiles: Bool = false, accounts: Accounts = fewAccounts
) throws(InvalidConfiguration) -> LoadedSettings {
    try Settings.load(
        yaml: Array(yaml.utf8), named: "c.yaml",
        environment: SettingOverride.environment { environment[$0] },
        flags: SettingOverride.flags { flags[$0] }, checksFiles: checksFiles, accounts: accounts)
}

/// Everything that is said about a text, a line each.
func problems(
    _ yaml: String, environment: [String: String] = [:], flags: [String: String] = [:],
    checksFiles: Bool = false
) -> [String] {
    do throws(InvalidConfiguration) {
        return try load(yaml, environment: environment, flags: flags, checksFiles: checksFiles)
            .warnings.map(\.description)
    } catch {
        return error.diagnostics.map(\.description)
    }
}
