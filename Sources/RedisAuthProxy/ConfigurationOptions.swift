// Where `run` and `check` take their settings from: a file, or flags in place of one.

import ArgumentParser
import Configuration
import Glibc

/// The flags that `run` and `check` share.
struct ConfigurationOptions: ParsableArguments {
    /// The variable that stands in for `--config`.
    static let configurationVariable = "REDIS_AUTH_PROXY_CONFIG"

    @Option(
        help: ArgumentHelp(
            "The configuration file (also $\(ConfigurationOptions.configurationVariable)).",
            valueName: "file"))
    var config: String?

    @Option(
        help: ArgumentHelp(
            "Without a file: where to listen, HOST:PORT or unix:PATH. Repeatable.",
            valueName: "address"))
    var listen: [String] = []

    @Option(
        help: ArgumentHelp(
            "Without a file: the server, rediss://HOST:PORT (redis:// for plaintext).",
            valueName: "url"))
    var upstream: String?

    @Option(
        help: ArgumentHelp(
            "Without a file: the name in the server's certificate, if not the URL's host.",
            valueName: "name"))
    var serverName: String?

    @Option(
        help: ArgumentHelp(
            "Without a file: certificates to trust in place of the system's.", valueName: "file"))
    var caFile: String?

    @Option(help: ArgumentHelp("Without a file: the ACL user to log in as.", valueName: "name"))
    var user: String?

    @Option(
        help: ArgumentHelp(
            "Without a file: the file that holds that user's password.", valueName: "file"))
    var passwordFile: String?

    @Option(
        help: ArgumentHelp("Without a file: multiplexed or dedicated.", valueName: "mode"))
    var mode: String?

    @Option(help: override("threads"))
    var threads: String?

    @Option(help: override("drain-timeout"))
    var drainTimeout: String?

    @Option(help: override("log-level"))
    var logLevel: String?

    @Option(help: override("log-format"))
    var logFormat: String?

    private static func override(_ flag: String) -> ArgumentHelp {
        guard let key = SettingOverride.keys.first(where: { $0.flag == flag }) else {
            preconditionFailure("no setting may be overridden by --\(flag)")
        }
        let fallback = key.defaultText.map { ", default \($0)" } ?? ""
        return ArgumentHelp(
            "\(key.sentence) Goes over the file (also $\(key.variable))\(fallback).",
            valueName: "value")
    }

    private var quickStart: QuickStart {
        var flags = QuickStart()
        flags.listen = listen
        flags.upstream = upstream
        flags.serverName = serverName
        flags.caFile = caFile
        flags.user = user
        flags.passwordFile = passwordFile
        flags.mode = mode
        return flags
    }

    /// Throws a usage error when flags contradict each other or say nothing.
    ///
    /// Not `validate()`, which comes before unknown flags are noticed: a misspelt --listen would be
    /// answered with the advice to give --listen.
    func checkUsage() throws {
        let given = quickStart.given
        if config != nil, let first = given.first {
            throw ValidationError(
                "--config and \(first) exclude each other: put everything into the file, or give"
                    + " flags alone.")
        }
        if config == nil, given.isEmpty, Self.environmentFile == nil {
            throw ValidationError(
                "Nothing to do: give --config FILE, or --listen, --upstream, --user and"
                    + " --password-file.")
        }
    }

    /// An empty variable is as good as none.
    static var environmentFile: String? {
        environment(configurationVariable).flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The settings that file or flags and the environment amount to. Flags win over
    /// `REDIS_AUTH_PROXY_CONFIG`, as they win over every variable.
    ///
    /// - Parameter checksFiles: warns about files that cannot be read now.
    func load(checksFiles: Bool) throws(InvalidConfiguration) -> LoadedSettings {
        let variables = SettingOverride.environment(environment)
        let flags = SettingOverride.flags { flag in
            switch flag {
            case "threads": threads
            case "drain-timeout": drainTimeout
            case "log-level": logLevel
            case "log-format": logFormat
            default: nil
            }
        }
        if quickStart.given.isEmpty, let file = config ?? Self.environmentFile {
            return try Settings.load(
                file: file, environment: variables, flags: flags, checksFiles: checksFiles)
        }
        return try Settings.load(
            quickStart: quickStart, environment: variables, flags: flags,
            checksFiles: checksFiles)
    }
}

/// The flag of commands that need a file, and nothing that goes over it.
struct ConfigurationFile: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The configuration file (also $\(ConfigurationOptions.configurationVariable)).",
            valueName: "file"))
    var config: String?

    /// - Throws: what is wrong with the file, or a usage error if none is given.
    func load() throws -> LoadedSettings {
        guard let file = config ?? ConfigurationOptions.environmentFile else {
            throw ValidationError("Nothing to do: give --config FILE.")
        }
        return try Settings.load(file: file, checksFiles: false)
    }

    /// Its settings. What is wrong with the file has been said when this throws.
    func settings() throws -> Settings {
        do {
            return try load().settings
        } catch let error as InvalidConfiguration {
            complain(error)
            throw Exit.configuration.code
        }
    }
}

private func environment(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }
}
