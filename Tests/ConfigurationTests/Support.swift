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

/// What becomes of a text; the file is called `c.yaml`.
func load(
    _ yaml: String, environment: [String: String] = [:], flags: [String: String] = [:],
    checksFiles: Bool = false
) throws(InvalidConfiguration) -> LoadedSettings {
    try Settings.load(
        yaml: Array(yaml.utf8), named: "c.yaml",
        environment: SettingOverride.environment { environment[$0] },
        flags: SettingOverride.flags { flags[$0] }, checksFiles: checksFiles)
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
