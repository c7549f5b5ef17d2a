// The pieces of the hot path without sockets, and what a login costs besides: `Benchmarks/micro`.

import Benchmark

let benchmarks: @Sendable () -> Void = {
    framingBenchmarks()
    routingBenchmarks()
    do {
        try writingBenchmarks()
        try signingBenchmarks()
    } catch {
        fatalError("\(error)")
    }
}
