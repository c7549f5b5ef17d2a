import Configuration
import Testing

@Suite struct SettingsTests {
    @Test func `an IPv6 host is written in brackets`() {
        #expect(HostAndPort(host: "::1", port: 6379).description == "[::1]:6379")
        #expect(HostAndPort(host: "cache", port: 6379).description == "cache:6379")
        #expect(ListenerAddress.unix(path: "/run/a.sock").description == "unix:/run/a.sock")
    }
}
