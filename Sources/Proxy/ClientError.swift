// Every error text of the proxy's own that a client can see. Text from clients is never echoed,
// and causes are for the operator's log only. Prefixes are those that client libraries know.

/// What a client is told when the proxy answers in the server's place.
package enum ClientError: CaseIterable, Sendable {
    // Of the proxy's own.
    case upstreamUnreachable
    case loginRefused
    case databaseRefused
    case loginInTransaction
    case noPinnedConnection
    case loginTooLong
    case loginWhileTied
    // In the words of a server (redis 7.0) whose default user has no password.
    case authWithoutPassword
    case notLoggedIn
    case helloNotLoggedIn
    case wrongPassword
    case authArity
    case authWhileSubscribed
    case helloWhileSubscribed
    case syntax
    case protocolVersion
    case protocolVersionNotInteger
    case clientName

    /// The reply, CR LF included.
    package var reply: [UInt8] { Array(text.utf8) }

    private var text: String {
        switch self {
        case .upstreamUnreachable:
            "-ERR redis-auth-proxy: the server cannot be reached, the command was not run\r\n"
        case .loginRefused:
            "-ERR redis-auth-proxy: the server refused the proxy's login, the command was not run\r\n"
        case .databaseRefused:
            "-ERR redis-auth-proxy: the server refused the proxy's SELECT, the command was not run\r\n"
        case .loginInTransaction:
            "-ERR redis-auth-proxy: AUTH and HELLO have no place in a transaction\r\n"
        case .noPinnedConnection:
            "-ERR redis-auth-proxy: this command needs a connection of its own and none is free, it was not run\r\n"
        case .loginTooLong:
            "-ERR Protocol error: AUTH or HELLO is too long\r\n"
        case .loginWhileTied:
            "-ERR redis-auth-proxy: this login leads to another user, and what the client has on its connection cannot be taken there: RESET first\r\n"
        case .notLoggedIn:
            "-NOAUTH Authentication required.\r\n"
        case .helloNotLoggedIn:
            "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n"
        case .authWithoutPassword:
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n"
        case .wrongPassword:
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        case .authArity:
            "-ERR wrong number of arguments for 'auth' command\r\n"
        case .authWhileSubscribed:
            "-ERR Can't execute 'auth': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n"
        case .helloWhileSubscribed:
            "-ERR Can't execute 'hello': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n"
        case .syntax:
            "-ERR syntax error\r\n"
        case .protocolVersion:
            "-NOPROTO unsupported protocol version\r\n"
        case .protocolVersionNotInteger:
            "-ERR Protocol version is not an integer or out of range\r\n"
        case .clientName:
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
        }
    }
}

extension ClientError {
    /// What the server says to an option of HELLO that it does not know, with the option's name.
    ///
    /// The name comes from the client: it is cut short, and only its printable characters stand in
    /// the reply, so that it can never end the line.
    static func unknownHelloOption(_ option: UnsafeRawBufferPointer) -> [UInt8] {
        let name = option.prefix(64).map { $0 >= 0x20 && $0 < 0x7f ? $0 : 0x20 }
        return Array("-ERR Syntax error in HELLO option '".utf8) + name + Array("'\r\n".utf8)
    }
}
