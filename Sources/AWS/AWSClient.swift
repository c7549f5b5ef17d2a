// Requests to AWS's services: signed, sent, tried again, and their errors understood.

import Identity
import Synchronization

/// The way to AWS that everything in this process shares: HTTP, time, retries, derived keys.
package final class AWSClient: Sendable {
    package let settings: AWSSettings
    package let http: HTTPClient
    package let clock: AWSClock
    package let keys = SigningKeys()
    let retry: Retry

    package init(
        _ settings: AWSSettings, clock: AWSClock = AWSClock(),
        cancellation: Cancellation = Cancellation()
    ) {
        self.settings = settings
        self.clock = clock
        http = HTTPClient(caBundle: settings.caBundle, cancellation: cancellation)
        retry = Retry(cancellation: cancellation)
    }

    /// One operation of a service that speaks JSON or the query protocol.
    struct Operation {
        let service: Service
        /// For messages, such as `GetSecretValue`.
        let name: String
        let region: String
        /// nil: not signed.
        let credential: AWSCredential?
        let headers: [(name: String, value: String)]
        let body: Secret
        /// In place of the service's endpoint in the region: the partition's global one.
        var endpoint: Endpoint?
    }

    /// Sends and tries again as `Retry` says; the body of the answer if it is a good one.
    func perform(_ operation: Operation) throws(AWSFailure) -> Secret {
        let endpoint: Endpoint
        if let given = operation.endpoint {
            endpoint = given
        } else {
            endpoint = try settings.endpoint(operation.service, region: operation.region)
        }
        return try retry { (_) throws(Retry.Attempt) in
            try self.attempt(operation, at: endpoint)
        }
    }

    /// An operation of a service with the query protocol: a form that is answered with XML; nil if
    /// the answer is none.
    ///
    /// - Parameters:
    ///   - what: the operation and its object, for messages.
    ///   - parameters: names and values, `Action` and `Version` among them.
    func query(
        _ service: Service, _ what: String, _ parameters: [(name: String, value: Secret)],
        region: String, credential: AWSCredential?, endpoint: Endpoint? = nil
    ) throws(AWSFailure) -> XMLAnswer? {
        var body = WipedBuffer(capacity: 4096)
        for (index, parameter) in parameters.enumerated() {
            if index > 0 { body.append("&") }
            body.append(parameter.name)
            body.append("=")
            body.appendEncoded(parameter.value)
        }
        let operation = Operation(
            service: service, name: what, region: region, credential: credential,
            headers: [("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")],
            body: body.secret(), endpoint: endpoint)
        return XMLAnswer(try perform(operation))
    }

    /// An operation of a service with JSON; nil if the answer is none.
    ///
    /// - Parameters:
    ///   - target: what `X-Amz-Target` says, such as `secretsmanager.GetSecretValue`.
    ///   - what: the operation and its object, for messages.
    func json(
        _ service: Service, _ target: String, _ what: String, body: Secret, region: String,
        credential: AWSCredential
    ) throws(AWSFailure) -> JSONObject? {
        let operation = Operation(
            service: service, name: what, region: region, credential: credential,
            headers: [
                ("Content-Type", "application/x-amz-json-1.1"), ("X-Amz-Target", target),
            ], body: body)
        return JSONObject(try perform(operation))
    }

    private func attempt(_ operation: Operation, at endpoint: Endpoint) throws(Retry.Attempt)
        -> Secret
    {
        var request = HTTPRequest(.post, endpoint.url, body: operation.body)
        if let credential = operation.credential {
            let signer = SignatureV4(
                credential: credential, region: operation.region,
                service: operation.service.signingName, keys: keys)
            request.headers = operation.body.withBytes { body in
                signer.authorize(
                    authority: endpoint.authority, headers: operation.headers, body: body,
                    at: clock.now()
                ).headers
            }
        } else {
            request.headers = operation.headers.map { HTTPHeader($0.name, $0.value) }
        }
        let response: HTTPResponse
        do throws(AWSFailure) {
            response = try http.send(request)
        } catch {
            var failed = Retry.Attempt(
                AWSFailure(error.kind, "\(operation.name): \(error.reason)", code: error.code))
            failed.isTimeOut = error.reason.contains("Timeout")
            throw failed
        }
        guard response.status == 200 else { throw failure(operation, endpoint, response) }
        return response.body
    }

    private func failure(
        _ operation: Operation, _ endpoint: Endpoint, _ response: HTTPResponse
    ) -> Retry.Attempt {
        let (code, message) = Self.error(in: response)
        let what = [code, message].compactMap(\.self).joined(separator: ": ")
        var kind = Retry.kind(code: code, status: response.status)
        var hasLearntTime = false
        if kind == .clockSkew {
            if let date = response.headers["date"].flatMap(httpDate) {
                hasLearntTime = clock.learn(date)
            }
            // A signature is more often wrong for other reasons: the clock was right, so it is one.
            if !hasLearntTime { kind = .refused }
        }
        var failed = Retry.Attempt(
            AWSFailure(
                kind,
                "\(operation.name) at \(endpoint.url): HTTP \(response.status)"
                    + (what.isEmpty ? "" : ", \(what)"), code: code))
        failed.hasLearntTime = hasLearntTime
        failed.asked = response.headers["x-amz-retry-after"].flatMap(Int64.init)
            .map { .milliseconds(min(max(0, $0), 20_000)) }
        return failed
    }

    /// AWS's name for an error and what it says about it, from JSON or XML.
    static func error(in response: HTTPResponse) -> (code: String?, message: String?) {
        var code = response.headers["x-amzn-errortype"]
        var message: String?
        if let json = JSONObject(response.body) {
            code = json.text("__type") ?? json.text("code") ?? json.text("error") ?? code
            message =
                json.text("message") ?? json.text("Message") ?? json.text("error_description")
        } else if let xml = XMLAnswer(response.body) {
            code = xml.texts["Code"] ?? code
            message = xml.texts["Message"]
        }
        // com.amazonaws.secretsmanager#ResourceNotFoundException, Name:http://…
        let name = code.map { code in
            let last = code.split(separator: "#").last.map(String.init) ?? code
            return last.split(separator: ":").first.map(String.init) ?? last
        }
        return (name.map { oneLine($0, limit: 100) }, message.map { oneLine($0, limit: 300) })
    }
}
