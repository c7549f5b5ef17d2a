import Testing
import Transport

@Suite struct `An endpoint` {
    @Test(
        arguments: [
            (Endpoint.tcp(host: "cache.example", port: 6379), "cache.example:6379"),
            (.tcp(host: "127.0.0.1", port: 0), "127.0.0.1:0"),
            (.tcp(host: "::1", port: 6379), "[::1]:6379"),
            (.unix(path: "/run/app.sock"), "unix:/run/app.sock"),
        ]
    )
    func `is written as an operator writes it`(endpoint: Endpoint, text: String) {
        #expect(endpoint.description == text)
    }
}
