import ArgumentParser
import Configuration

/// `users lint`: what is wrong with access strings, or dubious.
struct UsersLintCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lint",
        abstract: "Print what is wrong or dubious about the access strings of a configuration.",
        discussion: """
            Each problem is printed to standard error as FILE:LINE:COLUMN: error: or warning:, with \
            what was wanted, what was got and what to do. Nothing is connected to. Errors of the \
            configuration that are not about access strings are printed too; its other warnings are \
            check's.

            EXIT CODES
              0   no errors; there may be warnings, unless --strict is given
              64  the command line cannot be understood
              78  an error, or with --strict a warning
            """)

    @OptionGroup var file: ConfigurationFile

    @Flag(help: "Warnings count as errors.")
    var strict = false

    @Flag(help: "One JSON object in place of lines for people.")
    var json = false

    private struct Problem: Encodable {
        let severity: String
        /// nil: it is about something else than an access string.
        let user: String?
        let place: String
        let message: String
    }

    private struct Result: Encodable {
        let errors: Int
        let warnings: Int
        let problems: [Problem]
    }

    func run() throws {
        let found: [Diagnostic]
        var strings: Int?
        do {
            let loaded = try file.load()
            found = loaded.warnings
            strings = loaded.settings.users.count { $0.accessString != nil }
        } catch let error as InvalidConfiguration {
            found = error.diagnostics
        }
        let diagnostics = found.filter { $0.severity == .error || $0.accessStringOf != nil }
        let errors = diagnostics.count { $0.severity == .error }
        let warnings = diagnostics.count - errors
        for diagnostic in diagnostics { complain(diagnostic) }
        if json {
            let problems = diagnostics.map {
                Problem(
                    severity: $0.severity.rawValue, user: $0.accessStringOf,
                    place: "\($0.position)", message: $0.message)
            }
            say(UsersCommand.json(Result(errors: errors, warnings: warnings, problems: problems)))
        } else {
            let of = strings.map { " in \(counted($0, "access string"))" } ?? ""
            say("\(counted(errors, "error")), \(counted(warnings, "warning"))\(of)")
        }
        if errors > 0 || (strict && warnings > 0) { throw Exit.configuration.code }
    }
}

/// `1 warning`, `2 warnings`.
func counted(_ number: Int, _ noun: String) -> String {
    "\(number) \(noun)\(number == 1 ? "" : "s")"
}
