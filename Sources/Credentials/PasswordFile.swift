// Reading a password from a file, and telling whether the file is still the one that was read.
//
// The content passes through one buffer that is wiped; nothing of it is ever in an error.

import AWS
import Glibc
package import Identity

/// One reading of a password file.
package struct PasswordFile {
    /// Largest content that is accepted, in bytes: far beyond any password, and a file that is
    /// bigger was named by mistake.
    package static let sizeLimit = 64 * 1024

    /// What tells one state of a file from another without reading it. A rename-over changes the
    /// inode, a write in place the times.
    struct Fingerprint: Equatable {
        var device: UInt64
        var inode: UInt64
        var size: Int64
        var modified: [Int]
        var mode: UInt32
    }

    package let secret: Secret
    /// The permission bits, such as 0o600.
    package let mode: UInt32

    /// The file cannot serve as a password, in words for the operator.
    package struct Unusable: Error, Equatable {
        package let reason: String
    }

    /// Reads the password: the content without one trailing `\n` or `\r\n`.
    ///
    /// Refuses whatever is not a regular file, is empty, is larger than `sizeLimit`, or contains
    /// NUL or a line break. May block on a slow file system: never call it on a data-plane thread.
    package static func read(_ path: String) throws(Unusable) -> PasswordFile {
        // O_NONBLOCK: a FIFO without a writer must be refused, not waited for.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else { throw failure("cannot open \(path)", errno) }
        defer { close(descriptor) }

        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure("cannot stat \(path)", errno) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw Unusable(reason: "\(path) is not a regular file: name a file with the password")
        }

        // One byte more than allowed, so that a file of exactly the limit is told from a larger one.
        let capacity = sizeLimit + 1
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 1)
        var count = 0
        defer {
            explicit_bzero(buffer, count)
            buffer.deallocate()
        }
        while count < capacity {
            let got = Glibc.read(descriptor, buffer + count, capacity - count)
            if got == -1, errno == EINTR { continue }
            guard got >= 0 else { throw failure("cannot read \(path)", errno) }
            if got == 0 { break }
            count += got
        }
        guard count <= sizeLimit else {
            throw Unusable(
                reason: "\(path) is larger than \(sizeLimit) bytes: name a file with the password")
        }

        var password = UnsafeRawBufferPointer(start: buffer, count: count)[...]
        if password.last == UInt8(ascii: "\n") {
            password.removeLast()
            if password.last == UInt8(ascii: "\r") { password.removeLast() }
        }
        guard !password.isEmpty else {
            throw Unusable(reason: "\(path) is empty: write the password into it")
        }
        guard !password.contains(where: { $0 == 0 || $0 == 0x0a || $0 == 0x0d }) else {
            throw Unusable(
                reason: "\(path) contains a line break or NUL inside the password:"
                    + " write the password alone, on one line")
        }
        return PasswordFile(
            secret: Secret(copying: UnsafeRawBufferPointer(rebasing: password)),
            mode: status.st_mode & 0o7777)
    }

    /// The state of the file now; nil if there is none that can be looked at.
    static func fingerprint(of path: String) -> Fingerprint? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        return Fingerprint(
            device: UInt64(status.st_dev), inode: UInt64(status.st_ino),
            size: Int64(status.st_size),
            modified: [
                status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
                status.st_ctim.tv_nsec,
            ],
            mode: status.st_mode)
    }

    private static func failure(_ what: String, _ code: Int32) -> Unusable {
        let remedy =
            switch code {
            case ENOENT: ": create it, or correct the path"
            case EACCES: ": give this process the right to read it"
            default: ""
            }
        return Unusable(reason: "\(what): \(errorText(code))\(remedy)")
    }
}
