// How the process ends, as numbers that scripts and service managers can act on.

import ArgumentParser
import Glibc
import Rotation

/// The exit codes, named and numbered as in sysexits.h.
enum Exit: Int32, CaseIterable {
    case success = 0
    case usage = 64
    case unavailable = 69
    case system = 71
    case unfinished = 75
    case denied = 77
    case configuration = 78

    var meaning: String {
        switch self {
        case .success: "done; for run: stopped by SIGTERM or SIGINT and drained"
        case .usage: "the command line cannot be understood"
        case .unavailable:
            "something that is needed is not there: an address, a program; for doctor: a step failed;"
                + " for wait: not ready in time"
        case .system: "the operating system refused something: descriptors, threads, memory"
        case .unfinished:
            "something was not finished in time, or not confirmed; done again it goes on"
        case .denied:
            "AWS or a server refused the request or the login; for users explain: not allowed"
        case .configuration: "the configuration cannot be used; every problem has been printed"
        }
    }

    /// For ArgumentParser: ends the process with this code and without another word.
    var code: ExitCode { ExitCode(rawValue) }

    /// Why a rotation, or a change of a user, did not come to its end.
    init(_ kind: RotationFailure.Kind) {
        self =
            switch kind {
            case .unavailable: .unavailable
            case .busy, .timedOut, .superseded: .unfinished
            case .denied: .denied
            case .unusable: .configuration
            }
    }

    /// A table for help texts.
    static var table: String {
        allCases.map { "  \($0.rawValue)\($0.rawValue < 10 ? " " : "")  \($0.meaning)" }
            .joined(separator: "\n")
    }
}

/// Writes a line to standard error. `message` is for the operator and holds no secret.
func complain(_ message: some CustomStringConvertible) {
    write("\(message)\n", to: STDERR_FILENO)
}

/// Writes a line to standard output at once, also when it is a pipe.
func say(_ message: String) {
    write(message + "\n", to: STDOUT_FILENO)
}

private func write(_ text: String, to descriptor: Int32) {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let written = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        if written < 0, errno == EINTR { continue }
        // A reader that has gone away: there is nobody left to tell.
        guard written > 0 else { return }
        rest = rest.dropFirst(written)
    }
}
