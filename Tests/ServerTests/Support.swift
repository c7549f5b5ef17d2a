import Server
import Transport

/// An upstream without TLS, to which nothing connects unless somebody logs in.
func target(
    _ name: String, host: String = "cache.example", port: UInt16 = 6379
) -> UpstreamTarget {
    UpstreamTarget(
        name: name, host: host, port: port, serverName: host, tls: nil,
        connectTimeout: .seconds(5),
        keepAlive: KeepAlive(idleSeconds: 30, intervalSeconds: 10, probes: 3),
        userTimeout: .seconds(30), reconnectMinimum: .milliseconds(50),
        reconnectMaximum: .seconds(2))
}
