// How every benchmark here is run: so many operations at a time, and what one of them costs.

import Benchmark
import CAllocationCount

/// Calls of malloc and its kin by the measuring thread.
let allocations = BenchmarkMetric.custom("Allocations")
/// Thousandths of a gigabyte a second, that is, MB/s: the library counts in whole numbers.
let megabytesPerSecond = BenchmarkMetric.custom(
    "MB/s", polarity: .prefersLarger, useScalingFactor: false)

/// One benchmark, whose figures are for one operation: `body` is called with how often to do it.
///
/// - Parameter bytes: that one operation deals with; gives MB/s.
func measure(
    _ name: String,
    bytes: Int = 0,
    scale: BenchmarkScalingFactor = .kilo,
    _ body: @escaping (_ times: Int) -> Void
) {
    var metrics: [BenchmarkMetric] = [.wallClock, allocations]
    if bytes > 0 { metrics.append(megabytesPerSecond) }
    let configuration = Benchmark.Configuration(
        metrics: metrics,
        timeUnits: .nanoseconds,
        warmupIterations: 3,
        scalingFactor: scale,
        maxDuration: .milliseconds(600)
    )
    Benchmark(name, configuration: configuration) { benchmark in
        let times = benchmark.scaledIterations.count
        let before = allocation_count()
        let clock = ContinuousClock()
        benchmark.startMeasurement()
        let start = clock.now
        body(times)
        let elapsed = clock.now - start
        benchmark.stopMeasurement()
        benchmark.measurement(allocations, allocation_count() - before)
        if bytes > 0 {
            let nanoseconds = max(elapsed / .nanoseconds(1), 1)
            benchmark.measurement(
                megabytesPerSecond, Int(Double(bytes * times) * 1000 / nanoseconds))
        }
    }
}

/// Makes the optimiser forget where bytes come from: a scan of bytes that it knew not to change
/// would be done once and not a thousand times.
@inline(never)
@_optimize(none)
func launder(_ pointer: UnsafeRawPointer) -> UnsafeRawPointer { pointer }
