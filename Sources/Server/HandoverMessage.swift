// The hand-over of listening sockets from a running process to the one that follows it, in words.
//
//     new process                            running process
//     redis-auth-proxy handover 1 pid 20 ──►
//                                        ◄── redis-auth-proxy handover 1 pid 10
//                                        ◄── socket                        one line for each descriptor
//                                        ◄── socket 2049 77 /run/app.sock  that comes with it
//                                        ◄── handover 2049 78 /run/ho.sock
//                                        ◄── end
//     binds what is new, starts its threads
//     ready ──►                                                            stops to accept
//                                        ◄── yours
//     mine ──►                                                             closes its sockets, drains
//     accepts
//
// At every moment one process accepts, or clients wait in the kernel's queue for some milliseconds. Until
// `mine` the running process can go on as if nothing had been: it does when the connection ends. From
// `mine` on the new one has everything, whatever becomes of the other. Instead of any answer there may be
// `refused REASON`.
//
// The first line and `refused` are the same in all versions, so that two that do not understand each other
// can say so. A path is the last thing of its line, and has no control characters.

package import Transport

/// One line of the hand-over.
package enum HandoverMessage: Equatable, Sendable {
    /// The version that is spoken here.
    package static let version = 1
    /// The longest line in bytes, with room for a path and for a reason.
    static let lineLimit = 1024

    case hello(version: Int, processID: Int32)
    case refused(String)
    /// A listening socket, and the file of a Unix socket.
    case socket(SocketFile?)
    /// The socket over which hand-overs are asked for.
    case handover(SocketFile)
    case end
    case ready
    case yours
    case mine

    /// - Parameter line: without its newline.
    package init?(_ line: String) {
        let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false)
        switch words[0] {
        case "redis-auth-proxy":
            let words = line.split(separator: " ")
            guard words.count == 5, words[1] == "handover", words[3] == "pid",
                let version = Int(words[2]), let processID = Int32(words[4])
            else { return nil }
            self = .hello(version: version, processID: processID)
        case "refused":
            self = .refused(String(line.dropFirst("refused ".count)))
        case "socket" where words.count == 1:
            self = .socket(nil)
        case "socket":
            guard let file = Self.file(words) else { return nil }
            self = .socket(file)
        case "handover":
            guard let file = Self.file(words) else { return nil }
            self = .handover(file)
        case "end" where words.count == 1: self = .end
        case "ready" where words.count == 1: self = .ready
        case "yours" where words.count == 1: self = .yours
        case "mine" where words.count == 1: self = .mine
        default: return nil
        }
    }

    private static func file(_ words: [Substring]) -> SocketFile? {
        guard words.count == 4, let device = UInt64(words[1]), let inode = UInt64(words[2]),
            !words[3].isEmpty
        else { return nil }
        return SocketFile(path: String(words[3]), device: device, inode: inode)
    }

    /// Without a newline.
    package var line: String {
        switch self {
        case .hello(let version, let processID):
            "redis-auth-proxy handover \(version) pid \(processID)"
        case .refused(let reason): "refused \(reason)"
        case .socket(let file): file.map { "socket \(Self.words($0))" } ?? "socket"
        case .handover(let file): "handover \(Self.words(file))"
        case .end: "end"
        case .ready: "ready"
        case .yours: "yours"
        case .mine: "mine"
        }
    }

    private static func words(_ file: SocketFile) -> String {
        "\(file.device) \(file.inode) \(file.path)"
    }

    /// Whether a descriptor comes with it.
    var hasDescriptor: Bool {
        switch self {
        case .socket, .handover: true
        default: false
        }
    }
}
