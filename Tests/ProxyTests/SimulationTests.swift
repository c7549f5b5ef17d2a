// Runs of the simulation. A failing run prints its seed; run it again alone with
//
//     SIMULATION_SEED=<seed> SIMULATION_EVENTS=<events> swift test -c release --filter Simulation
//
// and write down what it shows as a test of its own rule, which outlives changes of the simulation.

import Glibc
import Testing

@Suite("Simulation", .serialized)
struct SimulationTests {
    /// An environment variable that holds a number, decimal or hexadecimal.
    static func environment(_ name: String) -> UInt64? {
        guard let text = getenv(name).map({ String(cString: $0) }) else { return nil }
        return text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
    }

    /// One run. The seed is printed before it, since an invariant that breaks traps.
    static func run(_ seed: UInt64, _ events: Int) -> World {
        print("simulation: SIMULATION_SEED=\(seed) SIMULATION_EVENTS=\(events)")
        let world = World(seed: seed, settings: World.settings(for: seed, events: events))
        if let failure = world.run() {
            Issue.record("SIMULATION_SEED=\(seed) SIMULATION_EVENTS=\(events): \(failure)")
        }
        return world
    }

    @Test("Every client gets exactly its own replies, whatever happens")
    func everyClientGetsItsOwnReplies() {
        let events = Self.environment("SIMULATION_EVENTS").map { Int($0) }
        if let seed = Self.environment("SIMULATION_SEED") {
            let world = Self.run(seed, events ?? 10_000)
            print(world.statistics.sorted { $0.key < $1.key })
            return
        }
        // Where a run decides whether a change is let in, the same change must get the same
        // verdict; everywhere else each run looks somewhere new.
        let first = getenv("CI") == nil ? UInt64.random(in: 0..<1 << 48) : 20_260_101
        let wanted = events ?? 150_000
        var done = 0
        var runs: UInt64 = 0
        var total: [String: Int] = [:]
        var began = timespec()
        clock_gettime(CLOCK_MONOTONIC, &began)
        // Counted without what it takes each run to come to rest.
        while Int(runs) * 5_000 < wanted {
            let world = Self.run(first + runs, 5_000)
            done += world.events
            runs += 1
            total.merge(world.statistics, uniquingKeysWith: +)
            if world.failure != nil { return }
        }
        var ended = timespec()
        clock_gettime(CLOCK_MONOTONIC, &ended)
        let seconds =
            Double(ended.tv_sec - began.tv_sec) + Double(ended.tv_nsec - began.tv_nsec) / 1e9
        print("simulation: \(done) events in \(runs) runs, \(Int(Double(done) / seconds)) a second")
        print(
            total.sorted { $0.key < $1.key }.map { "  \($0.key): \($0.value)" }
                .joined(separator: "\n"))
    }
}
