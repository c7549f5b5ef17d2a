/// What is known of a client before it has said anything: what the kernel attests, and where it
/// comes from. Facts alone; which user it becomes is the rules' to say.
package struct Client: Sendable, Equatable {
    /// The user that the kernel says the connection belongs to. nil: the kernel has not said, or
    /// what it said is in doubt, and then no rule about users or groups holds.
    package var userID: UInt32?
    /// Its groups, the primary one too. nil: the kernel attests none, as for TCP.
    package var groupIDs: [UInt32]?
    /// For the log alone: by the time it is read the number may be another process's.
    package var processID: Int32?
    /// nil: a Unix socket.
    package var address: IPAddress?
    package var port: UInt16

    package init(
        userID: UInt32? = nil,
        groupIDs: [UInt32]? = nil,
        processID: Int32? = nil,
        address: IPAddress? = nil,
        port: UInt16 = 0
    ) {
        self.userID = userID
        self.groupIDs = groupIDs
        self.processID = processID
        self.address = address
        self.port = port
    }
}

extension Client: CustomStringConvertible {
    /// Where it comes from: `127.0.0.1:50000`, `[::1]:50000`, or `a Unix socket`.
    package var description: String {
        guard let address else { return "a Unix socket" }
        return address.isIPv4 ? "\(address):\(port)" : "[\(address)]:\(port)"
    }
}
