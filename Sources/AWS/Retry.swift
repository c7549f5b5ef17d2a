// Which failures are tried again, how often and when: botocore's standard mode.
//
//   attempts      3 in all
//   pause i       random × min(2^i × 50 ms, 20 s); 1 s in place of 50 ms after throttling
//   quota         500 tokens for the whole process: 5 for a retry, 10 after a time-out; given back
//                 by what succeeds, so that an outage is not made worse by everybody's retries
//
// Source: botocore 1.43, retries/standard.py and retries/throttling; AWS SDKs and Tools Reference
// Guide, "Retry behavior".

import Synchronization

/// The rules, and the quota that all requests of the process share.
package final class Retry: Sendable {
    package static let attempts = 3
    static let capacity = 500

    private let tokens = Mutex(Retry.capacity)
    private let cancellation: Cancellation

    package init(cancellation: Cancellation) {
        self.cancellation = cancellation
    }

    /// Does `body` until it succeeds, fails for good, or was tried often enough.
    ///
    /// - Parameter body: gets the number of the attempt, from 0, and may throw what `answer` made.
    func callAsFunction<Result>(
        _ body: (_ attempt: Int) throws(Attempt) -> Result
    ) throws(AWSFailure) -> Result {
        var paid = 0
        for attempt in 0... {
            let failed: Attempt
            do throws(Attempt) {
                let result = try body(attempt)
                giveBack(paid > 0 ? paid : 1)
                return result
            } catch {
                failed = error
            }
            let failure = failed.failure
            switch failure.kind {
            case .cancelled, .refused: throw failure
            case .clockSkew where !failed.hasLearntTime: throw failure
            case .unavailable, .throttled, .clockSkew: break
            }
            let price = failure.kind == .unavailable && failed.isTimeOut ? 10 : 5
            guard attempt + 1 < Self.attempts, take(price) else { throw failure }
            paid = price
            try cancellation.wait(for: pause(after: attempt, failed))
        }
        throw .cancelled
    }

    /// One attempt's failure, and what it says about the next.
    struct Attempt: Error {
        let failure: AWSFailure
        var isTimeOut = false
        /// `AWSClock` was put right: the next attempt has another date.
        var hasLearntTime = false
        /// What the service asked for (`x-amz-retry-after`).
        var asked: Duration?

        init(_ failure: AWSFailure) {
            self.failure = failure
        }
    }

    private func pause(after attempt: Int, _ failed: Attempt) -> Duration {
        if failed.failure.kind == .clockSkew { return .zero }
        let base = failed.failure.kind == .throttled ? 1.0 : 0.05
        let longest = min(Double(1 << attempt) * base, 20)
        let drawn = Duration.seconds(Double.random(in: 0...1) * longest)
        return min(max(drawn, failed.asked ?? .zero), .seconds(20))
    }

    private func take(_ price: Int) -> Bool {
        tokens.withLock { tokens in
            guard tokens >= price else { return false }
            tokens -= price
            return true
        }
    }

    private func giveBack(_ amount: Int) {
        tokens.withLock { $0 = min(Self.capacity, $0 + amount) }
    }

    /// Names of errors that mean "too many requests".
    static let throttlingCodes: Set<String> = [
        "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottledException",
        "TooManyRequestsException", "ProvisionedThroughputExceededException",
        "TransactionInProgressException", "RequestLimitExceeded", "BandwidthLimitExceeded",
        "LimitExceededException", "RequestThrottled", "SlowDown", "PriorRequestNotComplete",
        "EC2ThrottledException",
    ]

    /// Names of errors that pass by themselves.
    static let transientCodes: Set<String> = [
        "RequestTimeout", "RequestTimeoutException", "InternalServiceError", "InternalFailure",
        "ServiceUnavailable", "IDPCommunicationError",
    ]

    /// Names of errors that a wrong clock causes, some of them among other causes.
    static let clockCodes: Set<String> = [
        "RequestTimeTooSkewed", "RequestExpired", "InvalidSignatureException",
        "SignatureDoesNotMatch", "RequestInTheFuture", "AuthFailure",
    ]

    /// What kind of failure an answer is, by AWS's name for it and the status.
    static func kind(code: String?, status: Int) -> AWSFailure.Kind {
        if let code {
            if throttlingCodes.contains(code) { return .throttled }
            if transientCodes.contains(code) { return .unavailable }
            if clockCodes.contains(code) { return .clockSkew }
        }
        if status == 429 { return .throttled }
        return [500, 502, 503, 504].contains(status) ? .unavailable : .refused
    }
}
