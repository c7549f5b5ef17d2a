import Glibc

/// A point on CLOCK_MONOTONIC in nanoseconds: what deadlines are made of. Not a date.
struct Monotonic: Comparable {
    var nanoseconds: Int64

    static func now() -> Monotonic {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Monotonic(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }

    static func < (left: Monotonic, right: Monotonic) -> Bool {
        left.nanoseconds < right.nanoseconds
    }

    static func + (instant: Monotonic, milliseconds: Int64) -> Monotonic {
        Monotonic(nanoseconds: instant.nanoseconds + milliseconds * 1_000_000)
    }

    /// Whole milliseconds from here to `later`, rounded up so that a wait does not end too early;
    /// 0 if it has passed.
    func milliseconds(until later: Monotonic) -> Int32 {
        let nanoseconds = later.nanoseconds - nanoseconds
        return nanoseconds <= 0 ? 0 : Int32(clamping: (nanoseconds + 999_999) / 1_000_000)
    }
}
