// What a failed system call leaves behind: which call, and errno.

import Glibc

/// A failed system call.
package struct SystemError: Error, Equatable, Sendable {
    /// The call's name as its man page spells it.
    package let call: StaticString
    /// errno.
    package let number: Int32

    package init(call: StaticString, number: Int32) {
        self.call = call
        self.number = number
    }

    package static func == (left: SystemError, right: SystemError) -> Bool {
        left.number == right.number && left.call.description == right.call.description
    }
}

extension SystemError: CustomStringConvertible {
    /// Such as `connect: Connection refused`.
    package var description: String { "\(call): \(reason)" }

    /// The system's words for the number alone, such as `Connection refused`.
    package var reason: String {
        // strerror_r in its XSI form, since strerror's buffer is shared by all threads.
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { buffer in
            guard let text = buffer.baseAddress, strerror_r(number, text, buffer.count) == 0 else {
                return "error \(number)"
            }
            return String(cString: text)
        }
    }
}
