// What is answered to a request of the admin listener.

import FlyingFox
import Foundation
import Transport

/// Answers GET, and nothing else.
struct AdminHandler: HTTPHandler {
    let observer: Observer
    let endpoint: Endpoint

    func handleRequest(_ request: HTTPRequest) async -> HTTPResponse {
        guard isAddressedToUs(request.headers[.host]) else {
            return text(
                HTTPStatusCode(403, phrase: "Forbidden"),
                "This is not the host's name here: ask for localhost, 127.0.0.1 or [::1].")
        }
        guard request.method == .GET else {
            return text(
                HTTPStatusCode(405, phrase: "Method Not Allowed"),
                "Nothing can be changed here: GET only.", [HTTPHeader("Allow"): "GET"])
        }
        switch request.path {
        case "/": return page()
        case "/status.json": return await status()
        case "/metrics": return await metrics()
        case "/startup", "/ready", "/live":
            return verdict(request.path, await observer.observe())
        default:
            return text(
                .notFound, "There are /, /status.json, /metrics, /startup, /ready and /live.")
        }
    }

    /// Whether a Host header is one that only this machine, or somebody who knows the number of its
    /// address, writes.
    func isAddressedToUs(_ host: String?) -> Bool {
        guard case .tcp(let own, _) = endpoint else { return true }
        guard var name = host?.lowercased(), !name.isEmpty else { return false }
        if name.hasPrefix("[") {
            guard let end = name.firstIndex(of: "]") else { return false }
            guard isPort(name[name.index(after: end)...]) else { return false }
            name = String(name[name.index(after: name.startIndex)..<end])
        } else if let colon = name.firstIndex(of: ":") {
            guard isPort(name[colon...]) else { return false }
            name = String(name[..<colon])
        }
        if ["localhost", "127.0.0.1", "::1"].contains(name) { return true }
        // Reachable from other machines on purpose: a number is no name that could be made to mean
        // another address.
        let isLoopback = own == "::1" || own.hasPrefix("127.")
        return name == own || (!isLoopback && SocketAddress(literal: name, port: 0) != nil)
    }

    private func isPort(_ text: Substring) -> Bool {
        text.isEmpty || (text.first == ":" && UInt16(text.dropFirst()) != nil)
    }

    // MARK: Answers

    private func verdict(_ path: String, _ observation: Observation) -> HTTPResponse {
        let obstacles =
            switch path {
            case "/live": observation.readiness.stalled
            case "/startup" where observation.hasStarted: [Readiness.Obstacle]()
            case "/startup": observation.readiness.unstarted
            default: observation.readiness.obstacles
            }
        guard !obstacles.isEmpty else { return text(.ok, "ok") }
        return text(
            .serviceUnavailable,
            obstacles.map { "\($0.subject): \($0.reason)" }.joined(separator: "\n"))
    }

    private func metrics() async -> HTTPResponse {
        let body = await observer.observe().exposition.text
        return response(.ok, "text/plain; version=0.0.4; charset=utf-8", Data(body.utf8))
    }

    private func status() async -> HTTPResponse {
        do {
            let json = try StatusDocument(await observer.observe()).json()
            return response(.ok, "application/json", json)
        } catch {
            return text(.internalServerError, "the status cannot be written: \(error)")
        }
    }

    private func page() -> HTTPResponse {
        var generator = SystemRandomNumberGenerator()
        let nonce = (0..<2).map { _ in String(generator.next(), radix: 36) }.joined()
        return response(
            .ok, "text/html; charset=utf-8", Data(StatusPage.html(nonce: nonce).utf8),
            [HTTPHeader("Content-Security-Policy"): StatusPage.policy(nonce: nonce)])
    }

    private func text(
        _ code: HTTPStatusCode, _ body: String, _ headers: [HTTPHeader: String] = [:]
    ) -> HTTPResponse {
        response(code, "text/plain; charset=utf-8", Data((body + "\n").utf8), headers)
    }

    private func response(
        _ code: HTTPStatusCode, _ type: String, _ body: Data, _ more: [HTTPHeader: String] = [:]
    ) -> HTTPResponse {
        var headers: [HTTPHeader: String] = [
            .contentType: type,
            HTTPHeader("Cache-Control"): "no-store",
            HTTPHeader("X-Content-Type-Options"): "nosniff",
            HTTPHeader("X-Frame-Options"): "DENY",
            HTTPHeader("Referrer-Policy"): "no-referrer",
            HTTPHeader("Cross-Origin-Resource-Policy"): "same-origin",
        ]
        headers.merge(more) { $1 }
        return HTTPResponse(statusCode: code, headers: HTTPHeaders(headers), body: body)
    }
}
