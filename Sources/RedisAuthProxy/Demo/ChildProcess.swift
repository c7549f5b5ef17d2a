// Other programs, for the demo: started without a shell, with nothing secret in their arguments.
//
// Arguments are visible to every user of the machine (/proc/PID/cmdline), so what is secret goes
// through the environment or standard input. A child gets a process group of its own, so that
// Ctrl-C in a terminal reaches the proxy alone, and the parent ends the child when it has drained.

import Glibc

/// A program that cannot be run, or that failed; in words for the operator.
struct ProgramFailure: Error, CustomStringConvertible {
    let description: String
    /// The program is not installed.
    var isMissing = false
}

/// A running child.
struct ChildProcess {
    let pid: pid_t

    /// Where a program of that name is, as a shell would find it.
    ///
    /// - Parameter package: what to install on Debian and Ubuntu when it is missing.
    static func path(of program: String, package: String) throws -> String {
        let directories = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
        for directory in directories.split(separator: ":") {
            let path = "\(directory)/\(program)"
            if access(path, X_OK) == 0 { return path }
        }
        throw ProgramFailure(
            description: "wanted the program \(program), found none in PATH:"
                + " apt-get install \(package)",
            isMissing: true)
    }

    /// Starts a program with its output in a file, and lets the kernel end it should this process
    /// die without having done so (PR_SET_PDEATHSIG, through setpriv, where that is installed).
    ///
    /// Call it on a thread that lives as long as the child shall: the kernel watches that thread.
    static func start(_ arguments: [String], outputTo file: String) throws -> ChildProcess {
        var arguments = arguments
        if let setpriv = try? path(of: "setpriv", package: "util-linux") {
            arguments = [setpriv, "--pdeathsig", "KILL"] + arguments
        }
        let output = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard output >= 0 else { throw failure("cannot write \(file)", errno) }
        defer { close(output) }
        return ChildProcess(
            pid: try spawn(arguments, environment: [:], input: nil, output: output))
    }

    /// Runs a program to its end and returns what it wrote; throws with that text if it failed.
    ///
    /// - Parameters:
    ///   - input: all of its standard input; at most 64 KiB, which is what a pipe holds.
    ///   - environment: goes over this process's.
    @discardableResult
    static func run(
        _ arguments: [String], input: [UInt8] = [], environment: [String: String] = [:]
    ) throws -> String {
        let program = arguments.first ?? ""
        let (inputRead, inputWrite) = try makePipe()
        defer { close(inputRead) }
        let (outputRead, outputWrite) = try makePipe()
        defer { close(outputRead) }
        let pid: pid_t
        do {
            defer { close(outputWrite) }
            defer { close(inputWrite) }
            precondition(input.count <= 65_536, "more input than a pipe holds")
            _ = input.withUnsafeBytes { write(inputWrite, $0.baseAddress, $0.count) }
            pid = try spawn(
                arguments, environment: environment, input: inputRead, output: outputWrite)
        }
        var output: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while true {
            let got = read(outputRead, &chunk, chunk.count)
            if got == -1, errno == EINTR { continue }
            guard got > 0 else { break }
            // What is beyond is read, so that the program can end, and forgotten.
            if output.count < 65_536 { output += chunk[..<got] }
        }
        let text = String(decoding: output, as: UTF8.self)
        let status = ChildProcess(pid: pid).wait()
        guard status == 0 else {
            throw ProgramFailure(description: "\(program) failed (status \(status)): \(text)")
        }
        return text
    }

    /// Whether it has not ended yet.
    var isRunning: Bool {
        var status: Int32 = 0
        return waitpid(pid, &status, WNOHANG) == 0
    }

    /// Ends it: politely, and after two seconds by force.
    func stop() {
        kill(pid, SIGTERM)
        for _ in 0..<200 {
            if !isRunning { return }
            usleep(10_000)
        }
        kill(pid, SIGKILL)
        _ = wait()
    }

    /// The raw status when it has ended, 0 for success; -1 if it was not there to wait for.
    private func wait() -> Int32 {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) == -1 {
            if errno != EINTR { return -1 }
        }
        return status
    }

    private static func spawn(
        _ arguments: [String], environment: [String: String], input: Int32?, output: Int32
    ) throws -> pid_t {
        guard let program = arguments.first else { throw failure("no program", EINVAL) }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // This process blocks and ignores signals that a child must be ended by.
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes,
            Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))

        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        if let input {
            posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        } else {
            posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        }
        posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO)

        var variables = inheritedEnvironment().filter { variable in
            !environment.keys.contains { variable.hasPrefix("\($0)=") }
        }
        variables += environment.map { "\($0.key)=\($0.value)" }

        var pid = pid_t()
        let code = withCStrings(arguments) { argv in
            withCStrings(variables) { envp in
                posix_spawn(&pid, program, &actions, &attributes, argv, envp)
            }
        }
        guard code == 0 else { throw failure("cannot run \(program)", code) }
        return pid
    }

    private static func inheritedEnvironment() -> [String] {
        var variables: [String] = []
        var entry: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?> = environ
        while let variable = entry.pointee {
            variables.append(String(cString: variable))
            entry += 1
        }
        return variables
    }

    private static func makePipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw failure("cannot make a pipe", errno) }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }

    private static func failure(_ what: String, _ code: Int32) -> ProgramFailure {
        ProgramFailure(description: "\(what): \(String(cString: strerror(code)))")
    }
}

/// Lends `texts` as the null-terminated array that execve wants.
private func withCStrings<Result>(
    _ texts: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
) -> Result {
    let copies = texts.map { strdup($0) }
    defer { for copy in copies { free(copy) } }
    return body(copies + [nil])
}
