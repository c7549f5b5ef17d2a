// Names of the system's users and groups to numbers, when a configuration is read and never later:
// a look-up can ask a directory over the network and take seconds.

import Glibc

/// What the system knows of users and groups (nsswitch.conf(5)).
package struct Accounts: Sendable {
    /// What asking for a name came to.
    package enum Answer: Sendable, Equatable {
        case found(UInt32)
        case unknown
        /// Nobody can say now; the system's words.
        case failed(String)
    }

    package var user: @Sendable (_ name: String) -> Answer
    package var group: @Sendable (_ name: String) -> Answer
    /// Who is in a group: those that it lists, and those whose primary group it is. A directory
    /// that does not let itself be listed hides the latter.
    package var members: @Sendable (_ groupID: UInt32) -> Set<UInt32>

    package init(
        user: @escaping @Sendable (_ name: String) -> Answer,
        group: @escaping @Sendable (_ name: String) -> Answer,
        members: @escaping @Sendable (_ groupID: UInt32) -> Set<UInt32>
    ) {
        self.user = user
        self.group = group
        self.members = members
    }

    /// This system's.
    package static let system = Accounts(
        user: { name in
            lookUp { buffer, size in
                var entry = passwd()
                var found: UnsafeMutablePointer<passwd>?
                let error = getpwnam_r(name, &entry, buffer, size, &found)
                return (error, found?.pointee.pw_uid)
            }
        },
        group: { name in
            lookUp { buffer, size in
                var entry = Glibc.group()
                var found: UnsafeMutablePointer<Glibc.group>?
                let error = getgrnam_r(name, &entry, buffer, size, &found)
                return (error, found?.pointee.gr_gid)
            }
        },
        members: { membersOfGroup($0) })

    /// Entries grow with a group's members, so the buffer grows until they fit.
    private static let bufferLimit = 16 << 20

    /// Calls a `…_r` function with buffers of growing size.
    private static func lookUp(
        _ body: (UnsafeMutablePointer<CChar>, _ size: Int) -> (error: Int32, id: UInt32?)
    ) -> Answer {
        var size = 4096
        while true {
            let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: size)
            defer { buffer.deallocate() }
            let (error, id) = body(buffer, size)
            if let id { return .found(id) }
            switch error {
            // What the functions say of a name that there is not depends on the source
            // (getpwnam(3), "RETURN VALUE").
            case 0, ENOENT, ESRCH, EBADF, EPERM: return .unknown
            case EINTR: continue
            case ERANGE where size < bufferLimit: size *= 4
            default: return .failed(String(cString: strerror(error)))
            }
        }
    }

    private static func membersOfGroup(_ groupID: UInt32) -> Set<UInt32> {
        var names: [String] = []
        _ = lookUp { buffer, size in
            var entry = Glibc.group()
            var found: UnsafeMutablePointer<Glibc.group>?
            let error = getgrgid_r(groupID, &entry, buffer, size, &found)
            guard let found else { return (error, nil) }
            var name = found.pointee.gr_mem
            while let text = name?.pointee {
                names.append(String(cString: text))
                name = name?.advanced(by: 1)
            }
            return (0, found.pointee.gr_gid)
        }
        var members = Set<UInt32>()
        for name in names {
            if case .found(let id) = system.user(name) { members.insert(id) }
        }
        setpwent()
        defer { endpwent() }
        while let entry = getpwent() {
            if entry.pointee.pw_gid == groupID { members.insert(entry.pointee.pw_uid) }
        }
        return members
    }
}
