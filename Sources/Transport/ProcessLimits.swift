// What the process asks of the kernel for itself, once, at start.

import CEv
import Glibc

/// Limits and flags of this process.
package enum ProcessLimits {
    /// Raises the soft limit of open descriptors to the hard one.
    ///
    /// - Returns: the limit in force afterwards, whether it could be raised or not.
    package static func raiseDescriptorLimit() -> Int {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        if limit.rlim_cur < limit.rlim_max {
            var raised = limit
            raised.rlim_cur = limit.rlim_max
            if setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &raised) == 0 {
                limit = raised
            }
        }
        return Int(clamping: limit.rlim_cur)
    }

    /// Makes sure that no memory of this process, secrets included, is written to a core file or
    /// read by another process of the same user (PR_SET_DUMPABLE, RLIMIT_CORE).
    package static func disableCoreDumps() throws(SystemError) {
        if cev_set_dumpable(0) != 0 { throw SystemError(call: "prctl", number: errno) }
        var limit = rlimit(rlim_cur: 0, rlim_max: 0)
        if setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit) != 0 {
            throw SystemError(call: "setrlimit", number: errno)
        }
    }

    /// Whether this process may leave a core file or be read by others of its user.
    package static var isDumpable: Bool { cev_get_dumpable() == 1 }
}
