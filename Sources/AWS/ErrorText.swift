// The system's words for what went wrong. strerror's buffer is shared by all threads; this one is not.

import Glibc

/// What errno means, such as `No such file or directory`.
package func errorText(_ code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 128)
    guard strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    return buffer.withUnsafeBufferPointer { text in
        text.baseAddress.map { String(cString: $0) } ?? "error \(code)"
    }
}
