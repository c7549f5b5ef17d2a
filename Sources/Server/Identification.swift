// At the door: what the kernel and the socket tell of a client, before a byte of it is read.
//
//     accepted descriptor ──► Client (facts) ──► the listener's rules ──► Admission
//
// The kernel is asked only what some rule of the listener wants to know. On the acceptor's thread: the
// question about a TCP connection is answered at once, but may in theory be waited for.

import Identity
import Transport

/// Collects what the rules of each listener need. Used on the acceptor's thread.
final class Identification {
    /// What was found out about one client.
    struct Finding {
        var client: Client
        /// Why the kernel's word was not good enough; nil: it was, or was not asked.
        var doubt: String?
    }

    private struct Need {
        var account: Bool
        var groups: Bool
    }

    private let needs: [Need]
    /// nil: no TCP listener has a rule about users or groups.
    private let owners: SocketOwners?

    /// - Throws: `SystemError` when a rule needs to know the users of TCP connections and the
    ///   kernel cannot be asked. Then every such client would be refused, which is better said at
    ///   the start.
    init(_ listeners: [Listener]) throws(SystemError) {
        needs = listeners.map { listener in
            Need(
                account: listener.rules.contains(where: \.needsAccount),
                groups: listener.rules.contains(where: \.needsGroups)
            )
        }
        let isAsked = listeners.contains { listener in
            guard case .tcp = listener.endpoint else { return false }
            return listener.rules.contains(where: \.needsAccount)
        }
        owners = isAsked ? try SocketOwners() : nil
    }

    /// Who is at the other end of a connection that was just accepted.
    func identify(_ descriptor: Int32, from address: SocketAddress, listener: Int) -> Finding {
        let need = needs[listener]
        if address.isUnix {
            // Asked in any case: it is one system call, and tells the log who it was.
            guard let peer = PeerCredentials.ofUnixPeer(descriptor, withGroups: need.groups) else {
                return Finding(
                    client: Client(),
                    doubt: need.account ? "the kernel does not tell the client's account" : nil)
            }
            return Finding(
                client: Client(
                    userID: peer.userID, groupIDs: peer.groupIDs, processID: peer.processID))
        }
        var client = Client(
            address: address.mappedIP.map { IPAddress(high: $0.high, low: $0.low) },
            port: address.port ?? 0)
        guard need.account, let owners else { return Finding(client: client) }
        switch owners.owner(of: descriptor, from: address) {
        case .user(let userID):
            client.userID = userID
            return Finding(client: client)
        case .unknown(let doubt):
            return Finding(client: client, doubt: doubt.rawValue)
        }
    }
}
