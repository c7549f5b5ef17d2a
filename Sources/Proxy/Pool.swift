// Who may share a connection with whom.
//
// Sessions of one route that speak the same protocol and work in the same database can share
// connections: everything else that a session has of its own is kept by the proxy, or moves the
// session to a connection of its own.
//
//     route 0:  RESP2 db 0   RESP3 db 0   RESP2 db 5 …      a pool each: `connectionsPerPool` shared
//     route 1:  RESP2 db 0   RESP3 db 0                     places, and spare connections
//
// The pools of database 0 exist as long as their route. Another comes into being when the server has let a
// session select its database, so there are no more of them than the server has databases.

/// What the sessions of one pool have in common.
struct Pool: Hashable {
    let route: Int
    /// 2 or 3.
    let protocolVersion: UInt8
    let database: Int
}

/// What a client says of itself and its connection shows in CLIENT LIST. Empty: not said.
struct ClientAttributes: Equatable {
    var name: [UInt8] = []
    var libraryName: [UInt8] = []
    var libraryVersion: [UInt8] = []
}

/// What the server has shown that it lets a user do. What it lets once, the proxy answers for it
/// from then on.
struct Permissions: OptionSet {
    let rawValue: UInt8
    static let setName = Permissions(rawValue: 1)
    static let getName = Permissions(rawValue: 2)
    static let setInfo = Permissions(rawValue: 4)
    static let replyMode = Permissions(rawValue: 8)
    /// It ends a transaction: without it, one on a shared connection would never end.
    static let exec = Permissions(rawValue: 16)
}
