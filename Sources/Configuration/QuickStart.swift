/// What the flags of `run` say when there is no file: listeners in front of one user of one server.
package struct QuickStart: Sendable {
    /// `--listen`, as often as given.
    package var listen: [String] = []
    /// `--upstream`, a `rediss://` or `redis://` URL.
    package var upstream: String?
    package var serverName: String?
    package var caFile: String?
    package var user: String?
    package var passwordFile: String?
    package var mode: String?

    package init() {}

    /// The flags that were given, with their dashes.
    package var given: [String] {
        var flags: [String] = listen.isEmpty ? [] : ["--listen"]
        for (flag, value) in [
            ("--upstream", upstream), ("--server-name", serverName), ("--ca-file", caFile),
            ("--user", user), ("--password-file", passwordFile), ("--mode", mode),
        ] where value != nil {
            flags.append(flag)
        }
        return flags
    }

    /// The nodes of the file that would say the same. nil: not enough was given to go on.
    func node() -> (Node?, [Diagnostic]) {
        var diagnostics: [Diagnostic] = []
        func needed(_ flag: String, _ example: String) {
            diagnostics.append(
                Diagnostic(
                    .error, at: .flag(flag),
                    "wanted \(flag) \(example), got none: add it, or use --config FILE alone"))
        }
        if listen.isEmpty { needed("--listen", "127.0.0.1:6379") }
        if upstream == nil { needed("--upstream", "rediss://HOST:PORT") }
        if user == nil { needed("--user", "NAME") }
        if passwordFile == nil { needed("--password-file", "FILE") }
        guard let upstream, let user, let passwordFile else { return (nil, diagnostics) }

        var server: [(String, Node)] = []
        let upstreamFlag = Position.flag("--upstream")
        do throws(Unwanted) {
            let (address, isTLS) = try parseUpstreamURL(upstream)
            server.append(("address", .text("\(address)", at: upstreamFlag)))
            if isTLS {
                var tls: [(String, Node)] = []
                if let serverName {
                    tls.append(("server_name", .text(serverName, at: .flag("--server-name"))))
                }
                if let caFile { tls.append(("ca_file", .text(caFile, at: .flag("--ca-file")))) }
                server.append(("tls", .mapping(tls, at: upstreamFlag)))
            } else {
                server.append(("tls", .text("off", at: upstreamFlag)))
                for (flag, value) in [("--server-name", serverName), ("--ca-file", caFile)]
                where value != nil {
                    diagnostics.append(
                        Diagnostic(
                            .error, at: .flag(flag),
                            "wanted TLS for it, got a redis:// upstream: use rediss://, or leave"
                                + " the flag out"))
                }
            }
        } catch {
            let advice = error.advice.map { ": \($0)" } ?? ""
            diagnostics.append(
                Diagnostic(
                    .error, at: upstreamFlag,
                    "wanted rediss://HOST:PORT, got something else (not shown, it may hold a"
                        + " password)\(advice)"))
        }
        guard diagnostics.isEmpty else { return (nil, diagnostics) }

        let userFlag = Position.flag("--user")
        let listeners = listen.map { address in
            let flag = Position.flag("--listen")
            var listener: [(String, Node)] = [("address", .text(address, at: flag))]
            if let mode { listener.append(("mode", .text(mode, at: .flag("--mode")))) }
            let rule: [(String, Node)] = [
                ("any", .text("true", at: flag)), ("user", .text(user, at: userFlag)),
            ]
            listener.append(("identities", .list([.mapping(rule, at: userFlag)], at: userFlag)))
            return Node.mapping(listener, at: flag)
        }
        let passwordFlag = Position.flag("--password-file")
        let credentials = Node.mapping(
            [("password_file", .text(passwordFile, at: passwordFlag))], at: passwordFlag)
        let root = Node.mapping(
            [
                (
                    "upstreams",
                    .mapping([("upstream", .mapping(server, at: upstreamFlag))], at: upstreamFlag)
                ),
                (
                    "users",
                    .mapping(
                        [
                            (
                                user,
                                .mapping(
                                    [
                                        ("upstream", .text("upstream", at: upstreamFlag)),
                                        ("credentials", credentials),
                                    ], at: userFlag)
                            )
                        ], at: userFlag)
                ),
                ("listeners", .list(listeners, at: .flag("--listen"))),
            ], at: .flag("--listen"))
        return (root, [])
    }
}
