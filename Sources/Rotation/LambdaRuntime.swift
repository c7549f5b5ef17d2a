// The runtime of AWS Lambda for a program of one's own (`provided.al2023`): a loop over plain HTTP.
//
//   GET  /2018-06-01/runtime/invocation/next              waits; an event, its id and its deadline
//   POST /2018-06-01/runtime/invocation/ID/response       what came of it
//   POST /2018-06-01/runtime/invocation/ID/error          or why nothing came of it
//   POST /2018-06-01/runtime/init/error                   no event was waited for: the setup is wrong
//
// The process is frozen between invocations, and ended without a word at a deadline: what takes its
// time must be over before, so that the failure can be told.
//
// Source: AWS Lambda Developer Guide, "Using the Lambda runtime API for custom runtimes".

package import AWS
package import Identity

/// One event to be handled.
package struct LambdaInvocation: Sendable {
    package let id: String
    /// When Lambda ends it; nil if it did not say.
    package let deadline: Monotonic?
    package let event: Secret
}

/// Serves invocations, one at a time, as long as Lambda lets it.
package struct LambdaRuntime {
    private let base: String
    private let http: HTTPClient
    private let clock: AWSClock

    /// - Parameter api: `AWS_LAMBDA_RUNTIME_API`, a host and a port.
    package init(api: String, http: HTTPClient = HTTPClient(), clock: AWSClock = AWSClock()) {
        base = "http://\(api)/2018-06-01/runtime"
        self.http = http
        self.clock = clock
    }

    /// Waits for events and tells what came of each. Returns only by throwing: the runtime API is
    /// out of order, and Lambda starts another process.
    package func serve(
        _ handle: (LambdaInvocation) throws(RotationFailure) -> Void
    ) throws(RotationFailure) -> Never {
        while true {
            let invocation = try next()
            do throws(RotationFailure) {
                try handle(invocation)
                try post("/invocation/\(invocation.id)/response", Secret("null".utf8))
            } catch {
                try post("/invocation/\(invocation.id)/error", body(error), error)
            }
        }
    }

    /// Tells that there will be no invocations, and why.
    package func report(unusable failure: RotationFailure) throws(RotationFailure) {
        try post("/init/error", body(failure), failure)
    }

    private func next() throws(RotationFailure) -> LambdaInvocation {
        var request = HTTPRequest(.get, base + "/invocation/next")
        // The next event may come in a month.
        request.timeout = nil
        let response = try send(request)
        guard response.status == 200, let id = response.headers["lambda-runtime-aws-request-id"],
            !id.isEmpty, id.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "/") })
        else {
            throw RotationFailure(
                .unavailable,
                "runtime API: wanted an event with an id, got HTTP \(response.status)")
        }
        var deadline: Monotonic?
        if let text = response.headers["lambda-runtime-deadline-ms"],
            let milliseconds = Int64(text)
        {
            deadline = Monotonic.now() + WallTime(milliseconds: milliseconds).since(clock.now())
        }
        return LambdaInvocation(id: id, deadline: deadline, event: response.body)
    }

    private func post(
        _ path: String, _ body: Secret, _ failure: RotationFailure? = nil
    ) throws(RotationFailure) {
        var request = HTTPRequest(.post, base + path, body: body)
        request.headers = [HTTPHeader("Content-Type", "application/json")]
        if let failure {
            request.headers.append(
                HTTPHeader("Lambda-Runtime-Function-Error-Type", Self.type(of: failure)))
        }
        let status = try send(request).status
        // An invocation that has timed out is a 4xx: it is over, and the next one comes.
        guard status < 500 else {
            throw RotationFailure(.unavailable, "runtime API, \(path): HTTP \(status)")
        }
    }

    private func send(_ request: HTTPRequest) throws(RotationFailure) -> HTTPResponse {
        var request = request
        // It is on this machine.
        request.usesProxy = false
        do throws(AWSFailure) {
            return try http.send(request)
        } catch {
            throw RotationFailure(.unavailable, "runtime API: \(error.reason)")
        }
    }

    /// A category and a name, as the error metrics of Lambda group them: `Rotation.TimedOut`.
    private static func type(of failure: RotationFailure) -> String {
        let name = failure.kind.rawValue
        return "Rotation.\(name.prefix(1).uppercased())\(name.dropFirst())"
    }

    private func body(_ failure: RotationFailure) -> Secret {
        var body = WipedBuffer()
        body.append("{\"errorType\":")
        body.appendJSON(Self.type(of: failure))
        body.append(",\"errorMessage\":")
        body.appendJSON("\(failure)")
        body.append("}")
        return body.secret()
    }
}
