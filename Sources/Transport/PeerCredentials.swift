// Who is at the other end of a local connection, told by the kernel and not by the client.
//
//     Unix socket     SO_PEERCRED, SO_PEERGROUPS        what the process was when it connected: effective
//                                                       user and group, supplementary groups
//     TCP, loopback   SocketOwners (NETLINK_SOCK_DIAG)  who made the client's socket: a user, no groups
//
// A forwarder (socat, ssh -L, a container's port proxy) is the other end itself, and is what is found.
//
// Numbers are those of our own user namespace. What has no number in it appears as the overflow id,
// which many different users can share, and which is `nobody` besides: it counts as unknown.

import Glibc

/// What the kernel attests of a peer.
package struct PeerCredentials: Sendable, Equatable {
    package var userID: UInt32
    /// The primary group and the supplementary ones. nil: not attested, or not asked.
    package var groupIDs: [UInt32]?
    /// 0: in no process namespace that is ours. For the log alone.
    package var processID: Int32

    package init(userID: UInt32, groupIDs: [UInt32]? = nil, processID: Int32 = 0) {
        self.userID = userID
        self.groupIDs = groupIDs
        self.processID = processID
    }

    /// What the kernel shows in place of users and groups that have no number in our namespace.
    ///
    /// Source: user_namespaces(7), "Unmapped user and group IDs"; /proc/sys/kernel/overflowuid has
    /// this value unless somebody changed it.
    package static let overflowID: UInt32 = 65_534

    /// Whether a number can stand for one account: not the overflow id, and not -1, which is none.
    package static func isAccount(_ id: UInt32) -> Bool {
        id != overflowID && id != .max && id != systemOverflowID
    }

    /// What was set in this system, read once.
    private static let systemOverflowID: UInt32 = {
        let descriptor = open("/proc/sys/kernel/overflowuid", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return overflowID }
        defer { Socket.close(descriptor) }
        var text = [UInt8](repeating: 0, count: 16)
        let count = read(descriptor, &text, text.count)
        let digits = text.prefix(max(0, count)).prefix { (0x30...0x39).contains($0) }
        return UInt32(String(decoding: digits, as: UTF8.self)) ?? overflowID
    }()

    /// The most groups a process can be in (limits.h, NGROUPS_MAX).
    private static let groupLimit = 65_536

    /// Who connected to a Unix socket. nil: the kernel does not say, or not with a number.
    ///
    /// - Parameter withGroups: asks for the groups too, which is a second system call.
    package static func ofUnixPeer(
        _ descriptor: Int32,
        withGroups: Bool
    ) -> PeerCredentials? {
        // struct ucred, which glibc shows to GNU sources only: pid, uid, gid (unix(7)).
        var credentials: (Int32, UInt32, UInt32) = (0, .max, .max)
        var length = socklen_t(MemoryLayout.size(ofValue: credentials))
        guard getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0,
            Int(length) == MemoryLayout.size(ofValue: credentials),
            isAccount(credentials.1)
        else { return nil }
        var peer = PeerCredentials(userID: credentials.1, processID: credentials.0)
        if withGroups {
            guard let groups = supplementaryGroups(descriptor) else { return nil }
            peer.groupIDs = ([credentials.2] + groups).filter(isAccount)
        }
        return peer
    }

    /// nil: the kernel does not say (SO_PEERGROUPS is in Linux 4.13 and newer).
    private static func supplementaryGroups(_ descriptor: Int32) -> [UInt32]? {
        var groups = [UInt32](repeating: 0, count: 64)
        while true {
            let size = groups.count * MemoryLayout<UInt32>.size
            var length = socklen_t(size)
            if getsockopt(descriptor, SOL_SOCKET, SO_PEERGROUPS, &groups, &length) == 0 {
                return Array(groups.prefix(Int(length) / MemoryLayout<UInt32>.size))
            }
            // ERANGE comes with the size that is wanted.
            let wanted = Int(length) / MemoryLayout<UInt32>.size
            guard errno == ERANGE, wanted > groups.count, wanted <= groupLimit else { return nil }
            groups = [UInt32](repeating: 0, count: wanted)
        }
    }
}
