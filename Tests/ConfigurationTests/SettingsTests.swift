// What a right configuration becomes.

import Configuration
import Identity
import Testing

@Suite struct SettingsTests {
    @Test func `the smallest configuration is everything else at its default`() throws {
        let loaded = try load(good)
        #expect(loaded.warnings == [])
        var wanted = Settings()
        var upstream = UpstreamSettings()
        upstream.name = "cache"
        upstream.address = HostAndPort(host: "cache.example", port: 6380)
        var user = UserSettings()
        user.name = "app"
        user.userName = "app"
        user.credentials = .passwordFile(path: "/run/secrets/app")
        var listener = ListenerSettings()
        listener.address = .tcp(address: "127.0.0.1", port: 6379)
        listener.identities = [IdentityRule()]
        (wanted.upstreams, wanted.users, wanted.listeners) = ([upstream], [user], [listener])
        #expect(loaded.settings == wanted)
    }

    @Test func `every setting can be set`() throws {
        let settings = try load(
            """
            threads: 4
            connections_per_worker: 2
            gather: false
            max_sessions: 77
            max_sessions_before_login: 55
            login_deadline: 44s
            max_pinned: 66
            login_timeout: 1s
            upstream_wait: 2m
            drain_timeout: 3h
            handover_socket: /run/h.sock
            handover_drain_timeout: 7d
            reply_window: 64KiB
            reply_buffer: 1MiB
            slow_reader_timeout: 250ms
            log: { level: debug, format: json }
            upstreams:
              a:
                address: "[2001:DB8::1]:6380"
                tls:
                  ca_file: /ca
                  server_name: name
                  min_version: 1.3
                  certificate_file: /cert
                  key_file: /key
                connect_timeout: 4s
                keepalive_idle: 5s
                keepalive_interval: 6s
                keepalive_count: 7
                tcp_user_timeout: 0ms
                reconnect_min: 8ms
                reconnect_max: 9s
              b: { address: "10.0.0.1:6379", tls: off }
            users:
              two: { upstream: b, user_name: other, credentials: { password_env: TWO } }
              one: { upstream: a, credentials: { password_file: one } }
            listeners:
              - address: "unix:/run/x y.sock"
                mode: dedicated
                accept_any_login: true
                socket_mode: 0660
                socket_owner: www-data
                socket_group: "33"
                identities: [{ any: true, user: two }]
              - { address: "[::1]:0", identities: [{ any: true, user: one }] }
            """
        ).settings
        #expect(settings.threads == 4)
        #expect(settings.connectionsPerWorker == 2)
        #expect(!settings.gather)
        #expect(settings.maxSessions == 77)
        #expect(settings.maxSessionsBeforeLogin == 55)
        #expect(settings.loginDeadline == .seconds(44))
        #expect(settings.maxPinned == 66)
        #expect(settings.loginTimeout == .seconds(1))
        #expect(settings.upstreamWait == .seconds(120))
        #expect(settings.drainTimeout == .seconds(10_800))
        #expect(settings.handoverSocket == "/run/h.sock")
        #expect(settings.handoverDrainTimeout == .seconds(604_800))
        #expect(settings.replyWindow == ByteCount(65_536))
        #expect(settings.replyBuffer == ByteCount(1 << 20))
        #expect(settings.slowReaderTimeout == .milliseconds(250))
        #expect(settings.log.level == .debug)
        #expect(settings.log.format == .json)

        #expect(settings.upstreams.map(\.name) == ["a", "b"])
        let a = settings.upstreams[0]
        #expect(a.address == HostAndPort(host: "2001:db8::1", port: 6380))
        var tls = UpstreamTLSSettings()
        (tls.caFile, tls.serverName, tls.minVersion) = ("/ca", "name", .tls13)
        (tls.certificateFile, tls.keyFile) = ("/cert", "/key")
        #expect(a.tls == .on(tls))
        #expect(a.connectTimeout == .seconds(4))
        #expect(a.keepaliveIdle == .seconds(5))
        #expect(a.keepaliveInterval == .seconds(6))
        #expect(a.keepaliveCount == 7)
        #expect(a.tcpUserTimeout == .zero)
        #expect(a.reconnectMin == .milliseconds(8))
        #expect(a.reconnectMax == .seconds(9))
        #expect(settings.upstreams[1].tls == .off)

        #expect(settings.listeners[0].address == .unix(path: "/run/x y.sock"))
        #expect(settings.listeners[0].mode == .dedicated)
        #expect(settings.listeners[0].acceptAnyLogin)
        #expect(settings.listeners[0].socketMode == SocketMode(0o660))
        #expect(settings.listeners[0].socketOwner == "www-data")
        #expect(settings.listeners[0].socketGroup == "33")
        #expect(settings.listeners[1].address == .tcp(address: "::1", port: 0))
    }

    @Test func `users are sorted by name and references follow them`() throws {
        let settings = try load(
            """
            upstreams: { x: { address: "h:1" }, y: { address: "h:2" } }
            users:
              zoe: { upstream: y, credentials: { password_file: z } }
              amy: { upstream: x, user_name: amy-upstream, credentials: { password_env: AMY } }
            listeners:
              - { address: "127.0.0.1:1", identities: [{ any: true, user: zoe }] }
              - { address: "127.0.0.1:2", identities: [{ any: true, user: amy }] }
            """
        ).settings
        #expect(settings.users.map(\.name) == ["amy", "zoe"])
        #expect(settings.users.map(\.userName) == ["amy-upstream", "zoe"])
        #expect(settings.users[0].credentials == .passwordEnvironment(variable: "AMY"))
        #expect(settings.listeners.map(\.identities[0].user) == [UserIndex(1), UserIndex(0)])
        #expect(settings.upstream(of: UserIndex(1)).name == "y")
        #expect(settings.user(UserIndex(0)).name == "amy")
    }

    @Test func `tls may be spelled on`() throws {
        let settings = try load(
            good.replacing("address: cache", with: "tls: on\n    address: cache")
        ).settings
        #expect(settings.upstreams[0].tls == .on(UpstreamTLSSettings()))
    }

    @Test func `JSON is accepted, since it is YAML`() throws {
        let settings = try load(
            #"""
            {"upstreams": {"c": {"address": "h:1"}},
             "users": {"u": {"upstream": "c", "credentials": {"password_file": "f"}}},
             "listeners": [{"address": "127.0.0.1:1", "identities": [{"any": true, "user": "u"}]}]}
            """#
        ).settings
        #expect(settings.users.count == 1)
    }

    @Test func `an IPv6 host is written in brackets`() {
        #expect(HostAndPort(host: "::1", port: 6379).description == "[::1]:6379")
        #expect(HostAndPort(host: "cache", port: 6379).description == "cache:6379")
        #expect(ListenerAddress.unix(path: "/run/a.sock").description == "unix:/run/a.sock")
    }
}
