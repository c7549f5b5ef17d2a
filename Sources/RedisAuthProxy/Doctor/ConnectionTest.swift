// `run --connection-test`: everything that `run` does up to the first client, but for listening.

import Configuration
import Credentials
import Server
import Telemetry

/// Logs in once as every user, in doctor's steps, and prints for each what came of it.
///
/// - Parameter environment: the passwords of users with password_env.
/// - Throws: the exit code, when the settings cannot be used here or a user could not be logged in.
func testConnections(_ settings: Settings, _ environment: PasswordEnvironment) throws {
    do {
        // Certificates and socket owners: without them `run` ends here too.
        _ = try ServerConfiguration(settings)
    } catch {
        complain("\(error)")
        throw Exit.configuration.code
    }
    // What the store has to say is said in the steps.
    let logger = Log.make("connection-test", level: .critical, format: settings.log.format)
    let store = try startedStore(settings, environment, logger: logger)
    defer { store.stop() }

    var heading = ""
    let doctor = Doctor(settings: settings, credentials: store) { section, step in
        // Of what went well, who it was; of the rest everything.
        guard step.outcome != .ok || ["configuration", "login"].contains(step.name) else { return }
        if DoctorReport.heading(section) != heading {
            heading = DoctorReport.heading(section)
            say(heading)
        }
        say(DoctorReport.lines(step))
    }
    let report = DoctorReport(sections: doctor.runLogins())
    let refused = report.sections.count { section in
        section.steps.contains { $0.outcome == .failed }
    }
    let users = settings.users.count
    say("\(users - refused) of \(users) user\(users == 1 ? "" : "s") could be logged in")
    if refused > 0 { throw Exit.unavailable.code }
}
