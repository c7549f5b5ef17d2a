// Asks the admin listener, which knows more than a client sees: every user's login and the time that
// its credential has left.

import AWS
import Configuration

/// Asks `/ready` or `/live`.
struct AdminProbe: Probe {
    let address: ListenerAddress
    let question: ProbeQuestion

    private var path: String { question == .live ? "/live" : "/ready" }

    var wanted: String { "200 for \(path) of the admin address" }

    func ask(until deadline: Deadline) -> ProbeAnswer {
        guard let left = deadline.millisecondsLeft else { return .nothing }
        let host = if case .tcp = address { "\(address)" } else { "localhost" }
        var request = HTTPRequest(.get, "http://\(host)\(path)")
        request.usesProxy = false
        request.connectTimeout = .milliseconds(Int64(left))
        request.timeout = .milliseconds(Int64(left))
        if case .unix(let path) = address { request.socketPath = path }
        do throws(AWSFailure) {
            let response = try HTTPClient().send(request)
            if response.status == 200 { return .wanted }
            let lines = response.body.withBytes { String(decoding: $0, as: UTF8.self) }
                .split(separator: "\n").map { escaped(String($0)) }
            return .other(
                "\(response.status), \(lines.joined(separator: "; ").prefix(ProbeAnswer.longestText))"
            )
        } catch {
            return deadline.millisecondsLeft == nil ? .nothing : .other(error.reason)
        }
    }
}
