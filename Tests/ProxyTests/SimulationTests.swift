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

    /// One run. The seed is printed before it, since an invariant that breaks traps: the run that
    /// did is then one of the last, one for each processor.
    static func run(_ seed: UInt64, _ events: Int) -> World {
        print("simulation: SIMULATION_SEED=\(seed) SIMULATION_EVENTS=\(events)")
        let world = World(seed: seed, settings: World.settings(for: seed, events: events))
        if let failure = world.run() {
            Issue.record("SIMULATION_SEED=\(seed) SIMULATION_EVENTS=\(events): \(failure)")
        }
        return world
    }

    /// Each once showed what the rule beside it is about. What a seed leads to changes with the
    /// simulation and with the router: the rules have tests of their own.
    @Test(
        "Seeds that found something find nothing any more",
        arguments: [
            // What is no request, behind a command that blocks, is no end of the client.
            UInt64(173_386_461_473_669),
            // A long request behind UNSUBSCRIBE, whose replies are turned off, is not a subscriber's.
            20_261_004,
            // A session that knows its connection's id ends when it cannot be logged in again.
            20_261_001, 85_493_860_223_997,
            // A command whose slice took nothing was not run, if there is no server for the next.
            20_260_972,
        ]
    )
    func foundBefore(seed: UInt64) {
        _ = Self.run(seed, 5_000)
    }

    @Test("Every client gets exactly its own replies, whatever happens")
    func everyClientGetsItsOwnReplies() async {
        let events = Self.environment("SIMULATION_EVENTS").map { Int($0) }
        if let seed = Self.environment("SIMULATION_SEED") {
            let world = Self.run(seed, events ?? 10_000)
            print(world.statistics.sorted { $0.key < $1.key })
            return
        }
        // Where a run decides whether a change is let in, it is long, and the same change must get
        // the same verdict; everywhere else each run looks somewhere new.
        let isVerdict = getenv("CI") != nil
        let first = isVerdict ? 20_260_101 : UInt64.random(in: 0..<1 << 48)
        let wanted = events ?? (isVerdict ? 5_000_000 : 150_000)
        let runs = (wanted + 4_999) / 5_000
        let processors = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
        var done = 0
        var total: [String: Int] = [:]
        var began = timespec()
        clock_gettime(CLOCK_MONOTONIC, &began)
        // Each run is one thread's; which of them is of no matter to it.
        await withTaskGroup(of: (Int, [String: Int], Bool).self) { group in
            for index in 0..<runs {
                if index >= processors, let (events, statistics, isGood) = await group.next() {
                    done += events
                    total.merge(statistics, uniquingKeysWith: +)
                    guard isGood else { break }
                }
                group.addTask {
                    let world = Self.run(first + UInt64(index), 5_000)
                    return (world.events, world.statistics, world.failure == nil)
                }
            }
            for await (events, statistics, _) in group {
                done += events
                total.merge(statistics, uniquingKeysWith: +)
            }
        }
        var ended = timespec()
        clock_gettime(CLOCK_MONOTONIC, &ended)
        let seconds =
            Double(ended.tv_sec - began.tv_sec) + Double(ended.tv_nsec - began.tv_nsec) / 1e9
        print(
            "simulation: \(done) events in \(runs) runs from seed \(first), "
                + "\(Int(Double(done) / seconds)) a second; \(runs * 5_000) of them under load"
        )
        print(
            total.sorted { $0.key < $1.key }.map { "  \($0.key): \($0.value)" }
                .joined(separator: "\n"))
    }
}
