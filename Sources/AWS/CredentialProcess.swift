// credential_process: a program of the operator's that prints a credential.
//
// It is run without a shell, with nothing on its input, in a process group of its own that is killed
// when it takes too long. What it writes to standard error is thrown away, because it may contain
// secrets.
//
// Source: AWS SDKs and Tools Reference Guide, "Process credential provider".

import Glibc
import Identity

/// A command line of `credential_process`.
package struct CredentialProcess {
    /// For the whole run.
    static let timeout: Duration = .seconds(60)
    /// Largest output that is accepted, in bytes.
    static let outputLimit = 64 * 1024

    /// The program and what it is given.
    package let arguments: [String]

    /// Splits a command line at blanks; quotes and backslashes keep them together, as in a shell, and
    /// nothing else is special. nil: there is no command, or a quote is open.
    package init?(commandLine: String) {
        var arguments: [String] = []
        var current: String?
        var quote: Character?
        var isEscaped = false
        for character in commandLine {
            if isEscaped {
                current = (current ?? "") + String(character)
                isEscaped = false
            } else if let open = quote {
                if character == open {
                    quote = nil
                } else if character == "\\", open == "\"" {
                    isEscaped = true
                } else {
                    current = (current ?? "") + String(character)
                }
            } else if character == "'" || character == "\"" {
                quote = character
                current = current ?? ""
            } else if character == "\\" {
                isEscaped = true
            } else if character == " " || character == "\t" || character == "\n" {
                if let argument = current { arguments.append(argument) }
                current = nil
            } else {
                current = (current ?? "") + String(character)
            }
        }
        guard quote == nil, !isEscaped else { return nil }
        if let argument = current { arguments.append(argument) }
        guard !arguments.isEmpty else { return nil }
        self.arguments = arguments
    }

    /// Runs the program and reads what it printed.
    func credential(_ cancellation: Cancellation) throws(AWSFailure) -> AWSCredential {
        let name = "credential_process \(arguments[0])"
        let (output, status) = try run(cancellation)
        guard status == 0 else {
            let end =
                status & 0x7f == 0 ? "it ended with \(status >> 8 & 0xff)" : "it was killed"
            throw AWSFailure(
                .unavailable,
                "\(name): wanted a credential, but \(end); what it wrote to standard error is not"
                    + " shown: run it by hand")
        }
        guard let printed = JSONObject(output), printed["Version"] == .number(1) else {
            throw AWSFailure(
                .unavailable, "\(name): wanted JSON with Version 1, got something else")
        }
        return try AWSCredential(printed, tokenKey: "SessionToken", source: name)
    }

    /// The output and what waitpid(2) says of the end.
    private func run(_ cancellation: Cancellation) throws(AWSFailure) -> (Secret, Int32) {
        let name = "credential_process \(arguments[0])"
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else {
            throw AWSFailure(.unavailable, "\(name): cannot create a pipe: \(errorText(errno))")
        }
        defer { close(ends[0]) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // This thread has signals blocked and SIGPIPE ignored; the program starts as from a shell.
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigaddset(&signals, SIGPIPE)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes,
            Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))

        var pid = pid_t()
        var words = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        let code = posix_spawnp(&pid, arguments[0], &actions, &attributes, &words, environ)
        close(ends[1])
        guard code == 0 else {
            throw AWSFailure(.unavailable, "\(name): cannot be started: \(errorText(code))")
        }

        let deadline = Monotonic.now() + Self.timeout
        var output = WipedBuffer(capacity: 4096)
        var failure: AWSFailure?
        reading: while true {
            let left = deadline.milliseconds(since: Monotonic.now())
            if cancellation.isCancelled { failure = .cancelled }
            if left <= 0 {
                failure = AWSFailure(
                    .unavailable,
                    "\(name): it did not end within \(Self.timeout.components.seconds) s")
            }
            if output.count > Self.outputLimit {
                failure = AWSFailure(
                    .unavailable, "\(name): it printed more than \(Self.outputLimit) bytes")
            }
            guard failure == nil else { break }
            var polled = [
                pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0),
                pollfd(fd: cancellation.descriptor, events: Int16(POLLIN), revents: 0),
            ]
            guard poll(&polled, 2, Int32(clamping: min(left, 1000))) > 0,
                polled[0].revents != 0
            else { continue }
            let isOver = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { chunk in
                defer { if let base = chunk.baseAddress { explicit_bzero(base, chunk.count) } }
                let got = read(ends[0], chunk.baseAddress, chunk.count)
                if got > 0 {
                    output.append(UnsafeRawBufferPointer(rebasing: chunk[..<got]))
                }
                return got == 0 || got < 0 && errno != EINTR
            }
            if isOver { break }
        }
        if failure != nil { kill(-pid, SIGKILL) }
        // The output is closed but the program may go on: not for longer than the deadline.
        var status: Int32 = 0
        while true {
            let ended = waitpid(pid, &status, WNOHANG)
            if ended == pid || ended == -1 && errno != EINTR { break }
            if failure == nil, Monotonic.now() > deadline || cancellation.isCancelled {
                failure = AWSFailure(
                    .unavailable,
                    "\(name): it did not end within \(Self.timeout.components.seconds) s")
                kill(-pid, SIGKILL)
            }
            usleep(2000)
        }
        if let failure { throw failure }
        return (output.secret(), status)
    }
}
