// One question to all workers, and what comes back.
//
//     any thread ── post to each mailbox ──► [worker 0] [worker 1] …   each answers in its next turn
//          ▲                                      │          │
//          └── wait ──────── answers ─────────────┴──────────┘         who has ended is excused, and who
//                                                                      does not answer in time is late

import Glibc
import Synchronization
import Transport

/// See the head of this file. Usable from any thread.
final class Inquiry<Question: Sendable, Answer: Sendable>: Sendable {
    /// What came back, by the workers' numbers.
    struct Outcome: Sendable {
        var answers: [Answer?]
        /// Those that may answer still.
        var late: [Int] = []
    }

    private struct State {
        var answers: [Answer?]
        var missing: Set<Int>
    }

    let question: Question
    /// Nanoseconds of CLOCK_MONOTONIC.
    let askedAt = monotonicNanoseconds()
    private let state: Mutex<State>

    init(_ question: Question, workers: Int) {
        self.question = question
        state = Mutex(
            State(answers: Array(repeating: nil, count: workers), missing: Set(0..<workers)))
    }

    /// Called once by each worker, on its thread.
    func answer(_ answer: Answer, of worker: Int) {
        state.withLock { state in
            state.answers[worker] = answer
            state.missing.remove(worker)
        }
    }

    /// There will be no answer of this one: it has ended.
    func excuse(_ worker: Int) {
        state.withLock { _ = $0.missing.remove(worker) }
    }

    /// Waits for all answers, not for longer than this since it was asked.
    func wait(atMost patience: Duration) -> Outcome {
        let deadline = askedAt + patience.nanoseconds
        // A worker that has nothing to do answers in some microseconds.
        var pause: UInt32 = 20
        while true {
            let outcome: Outcome? = state.withLock { state in
                guard state.missing.isEmpty || monotonicNanoseconds() >= deadline else {
                    return nil
                }
                return Outcome(answers: state.answers, late: state.missing.sorted())
            }
            if let outcome { return outcome }
            usleep(pause)
            pause = min(pause * 2, 2_000)
        }
    }
}

extension Server {
    /// Asks all workers, and waits for what comes back. Not from a thread of the server's.
    ///
    /// - Parameter message: what the question is to a worker.
    func ask<Question, Answer>(
        _ question: Question, _ message: (Inquiry<Question, Answer>) -> WorkerMessage,
        _ patience: Duration
    ) -> Inquiry<Question, Answer>.Outcome {
        let inquiry = Inquiry<Question, Answer>(question, workers: workers.count)
        for (number, worker) in workers.enumerated()
        where !worker.mailbox.post(message(inquiry)) {
            inquiry.excuse(number)
        }
        return inquiry.wait(atMost: patience)
    }
}
