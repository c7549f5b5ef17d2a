// Descriptors that travel between processes with bytes over a Unix socket (SCM_RIGHTS, unix(7)).
//
//     sender    "socket unix:/run/s …\n" + [7]      one sendmsg
//     receiver  "socket unix:/run/s …\n" + [12]     the same file, by a number of its own
//
// The kernel makes the receiver's numbers with recvmsg, so whoever reads such a socket with anything
// else loses them. What arrives is owned by the receiver, whether it is wanted or not.
//
// The control buffer is laid out by hand: CMSG_FIRSTHDR and its kin are macros, which Swift does not
// see. On 64-bit Linux a header has 16 bytes and data is padded to 8 (cmsg(3), linux/socket.h).

import Glibc

/// What a recvmsg brought.
package enum PassedResult: Sendable {
    /// So many bytes, at least one, and the descriptors that came with them: close-on-exec, and now
    /// the caller's.
    case bytes(Int, descriptors: [Int32])
    case wouldBlock
    /// The peer sends no more.
    case end
    /// The connection is lost, or brought descriptors for which this process had no room.
    case failed(SystemError)
}

extension Socket {
    /// The most descriptors in one message (SCM_MAX_FD in linux/net/scm.h).
    package static let passedLimit = 253

    private static let headerSize = MemoryLayout<cmsghdr>.size

    private static func controlSize(for count: Int) -> Int {
        let end = headerSize + count * MemoryLayout<Int32>.size
        return (end + 7) & ~7
    }

    /// One sendmsg of `bytes` with `descriptors`, which stay the caller's. `bytes` must not be empty.
    package static func send(
        _ descriptor: Int32, _ bytes: [UInt8], passing descriptors: [Int32]
    ) -> SendResult {
        precondition(!bytes.isEmpty && descriptors.count <= passedLimit)
        return bytes.withUnsafeBytes { bytes in
            if descriptors.isEmpty { return send(descriptor, bytes) }
            var vector = iovec(
                iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress),
                iov_len: bytes.count)
            let size = controlSize(for: descriptors.count)
            return withUnsafeTemporaryAllocation(byteCount: size, alignment: 8) { control in
                control.initializeMemory(as: UInt8.self, repeating: 0)
                let length = headerSize + descriptors.count * MemoryLayout<Int32>.size
                var header = cmsghdr()
                header.cmsg_len = length
                header.cmsg_level = SOL_SOCKET
                header.cmsg_type = Int32(SCM_RIGHTS)
                control.storeBytes(of: header, as: cmsghdr.self)
                for (index, passed) in descriptors.enumerated() {
                    control.storeBytes(
                        of: passed,
                        toByteOffset: headerSize + index * MemoryLayout<Int32>.size,
                        as: Int32.self)
                }
                return withUnsafeMutablePointer(to: &vector) { vector in
                    var message = msghdr()
                    message.msg_iov = vector
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = size
                    while true {
                        let count = sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL))
                        if count >= 0 { return .sent(count) }
                        let number = errno
                        if number == EINTR { continue }
                        if number == EAGAIN || number == EWOULDBLOCK { return .wouldBlock }
                        return .failed(SystemError(call: "sendmsg", number: number))
                    }
                }
            }
        }
    }

    /// One recvmsg into `buffer`, which must not be empty.
    package static func receivePassed(
        _ descriptor: Int32, into buffer: UnsafeMutableRawBufferPointer
    ) -> PassedResult {
        assert(!buffer.isEmpty)
        var vector = iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
        let size = controlSize(for: passedLimit)
        return withUnsafeTemporaryAllocation(byteCount: size, alignment: 8) { control in
            withUnsafeMutablePointer(to: &vector) { vector in
                while true {
                    var message = msghdr()
                    message.msg_iov = vector
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = size
                    let count = recvmsg(
                        descriptor, &message, Int32(MSG_CMSG_CLOEXEC))
                    let number = errno
                    if count < 0 {
                        if number == EINTR { continue }
                        if number == EAGAIN || number == EWOULDBLOCK { return .wouldBlock }
                        return .failed(SystemError(call: "recvmsg", number: number))
                    }
                    let passed = descriptors(
                        in: UnsafeRawBufferPointer(
                            rebasing: control[..<min(size, message.msg_controllen)]))
                    if message.msg_flags & Int32(MSG_CTRUNC) != 0 {
                        for one in passed { close(one) }
                        return .failed(SystemError(call: "recvmsg", number: EMFILE))
                    }
                    if count == 0 {
                        for one in passed { close(one) }
                        return .end
                    }
                    return .bytes(count, descriptors: passed)
                }
            }
        }
    }

    private static func descriptors(in control: UnsafeRawBufferPointer) -> [Int32] {
        var result: [Int32] = []
        var offset = 0
        while offset + headerSize <= control.count {
            let header = control.loadUnaligned(fromByteOffset: offset, as: cmsghdr.self)
            let end = offset + Int(header.cmsg_len)
            guard Int(header.cmsg_len) >= headerSize, end <= control.count else { break }
            if header.cmsg_level == SOL_SOCKET && header.cmsg_type == Int32(SCM_RIGHTS) {
                for position in stride(from: offset + headerSize, to: end, by: 4)
                where position + 4 <= end {
                    result.append(control.loadUnaligned(fromByteOffset: position, as: Int32.self))
                }
            }
            offset = (end + 7) & ~7
        }
        return result
    }
}
