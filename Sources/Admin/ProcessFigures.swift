// What the system says of this process.
//
// Source: proc(5), /proc/self/statm and /proc/self/fd; getrusage(2), getrlimit(2).

import Foundation

/// Figures of one moment.
struct ProcessFigures: Sendable {
    var cpuSeconds = 0.0
    var residentBytes = 0
    var openDescriptors = 0
    var maximumDescriptors = 0

    static var now: ProcessFigures {
        var figures = ProcessFigures()
        var usage = rusage()
        if getrusage(RUSAGE_SELF.rawValue, &usage) == 0 {
            figures.cpuSeconds = usage.ru_utime.seconds + usage.ru_stime.seconds
        }
        if let statm = FileManager.default.contents(atPath: "/proc/self/statm") {
            let fields = String(decoding: statm, as: UTF8.self).split(separator: " ")
            if fields.count > 1, let pages = Int(fields[1]) {
                figures.residentBytes = pages * sysconf(Int32(_SC_PAGESIZE))
            }
        }
        let descriptors = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
        figures.openDescriptors = descriptors?.count ?? 0
        var limit = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
            figures.maximumDescriptors = Int(clamping: limit.rlim_cur)
        }
        return figures
    }
}

extension timeval {
    fileprivate var seconds: Double { Double(tv_sec) + Double(tv_usec) / 1e6 }
}
