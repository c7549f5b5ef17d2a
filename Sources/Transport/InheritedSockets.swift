// Listening sockets that somebody else bound: a service manager, or the process before this one.
//
//     from            descriptors are     a Unix socket's file is       at close
//     ──────────────────────────────────────────────────────────────────────────────────────────────
//     .manager        the manager's too   the manager's, left alone     kept open, to be taken again
//     .predecessor    ours from now on    ours from now on              closed, its file removed
//
// A listener finds its socket by the address that it is bound to, which the kernel knows; what the
// sender says about it is not believed. A socket that nobody takes stays open in the first case, because
// a later configuration may want it, and is closed by `closeRest` in the second.

import Glibc
import Synchronization

/// Why an inherited descriptor cannot be used.
package struct InheritanceError: Error, Equatable, Sendable, CustomStringConvertible {
    package let description: String

    package init(_ description: String) { self.description = description }
}

/// The file of a Unix socket, told from another one at the same path.
package struct SocketFile: Equatable, Sendable {
    package let path: String
    package let device: UInt64
    package let inode: UInt64

    package init(path: String, device: UInt64, inode: UInt64) {
        self.path = path
        self.device = device
        self.inode = inode
    }

    /// What is at `path` now; nil if there is nothing.
    package init?(at path: String) {
        var status = stat()
        guard lstat(path, &status) == 0 else { return nil }
        self.init(path: path, device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }

    /// Whether it is still there.
    package var isThere: Bool { SocketFile(at: path) == self }
}

/// Sockets to be taken by listeners. Usable from any thread.
package final class InheritedSockets: Sendable {
    /// Who bound them.
    package enum Origin: Sendable {
        /// A service manager, which keeps them open beyond our end.
        case manager
        /// A process that hands them over.
        case predecessor
    }

    private struct Entry {
        let descriptor: Int32
        let address: SocketAddress
        let file: SocketFile?
        /// What the manager calls it.
        let name: String?
        var isTaken = false
    }

    package let origin: Origin
    private let entries = Mutex<[Entry]>([])

    package init(from origin: Origin) { self.origin = origin }

    /// Makes a descriptor ours, non-blocking and close-on-exec.
    ///
    /// - Parameters:
    ///   - file: of a Unix socket whose file is handed over with it.
    ///   - name: for messages.
    /// - Throws: `InheritanceError` if it is no stream socket that listens; it is then still the
    ///   caller's.
    package func add(
        _ descriptor: Int32, file: SocketFile? = nil, name: String? = nil
    ) throws(InheritanceError) {
        let shown = "descriptor \(descriptor)" + (name.map { " (\($0))" } ?? "")
        guard let address = Socket.localAddress(descriptor),
            [AF_INET, AF_INET6, AF_UNIX].contains(address.family)
        else {
            throw InheritanceError("\(shown): wanted a TCP or Unix socket, got something else")
        }
        guard Socket.option(descriptor, SO_TYPE) == Int32(SOCK_STREAM.rawValue),
            Socket.option(descriptor, SO_ACCEPTCONN) == 1
        else {
            throw InheritanceError(
                "\(shown): wanted a stream socket that listens, got one on \(address) that does not"
                    + " (in a .socket unit: ListenStream, and Accept=no)")
        }
        if let error = Socket.makeOurs(descriptor) {
            throw InheritanceError("\(shown): \(error)")
        }
        entries.withLock {
            $0.append(Entry(descriptor: descriptor, address: address, file: file, name: name))
        }
    }

    /// The socket that is bound to an address, once.
    package func take(_ address: SocketAddress) -> ListeningSocket? {
        let entry = entries.withLock { entries -> Entry? in
            let index = entries.firstIndex { !$0.isTaken && $0.address.isSamePlace(as: address) }
            guard let index else { return nil }
            // A Unix socket whose file is gone or another's cannot be reached by its path.
            if origin == .predecessor, entries[index].address.isUnix,
                entries[index].file?.isThere != true
            {
                return nil
            }
            entries[index].isTaken = true
            return entries[index]
        }
        guard let entry else { return nil }
        let socket = ListeningSocket(
            inherited: entry.descriptor, address: entry.address, file: entry.file,
            lender: origin == .manager ? self : nil)
        // The other process may go on with it.
        if origin == .predecessor { socket.share(true) }
        return socket
    }

    /// A listener lets go of a socket that stays open.
    func giveBack(_ descriptor: Int32) {
        entries.withLock { entries in
            guard let index = entries.firstIndex(where: { $0.descriptor == descriptor }) else {
                return
            }
            entries[index].isTaken = false
        }
    }

    /// Where those are bound that nobody has taken, with their names.
    package var untaken: [String] {
        entries.withLock { entries in
            entries.filter { !$0.isTaken }.map { entry in
                "\(entry.address)" + (entry.name.map { " (\($0))" } ?? "")
            }
        }
    }

    /// Closes those that nobody has taken.
    package func closeRest() {
        let rest = entries.withLock { entries in
            defer { entries.removeAll { !$0.isTaken } }
            return entries.filter { !$0.isTaken }
        }
        for entry in rest { Socket.close(entry.descriptor) }
    }
}
