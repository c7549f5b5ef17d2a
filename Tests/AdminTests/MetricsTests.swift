import Admin
import Glibc
import Identity
import Proxy
import Server
import Telemetry
import Testing
import Transport

@Suite(.serialized) struct `What is exposed` {
    private func observer(_ report: ServerReport) -> Observer {
        Observer(records: RecentRecords(), version: "1.2.3") { report }
    }

    @Test func `has every metric of the table, and nothing else`() async throws {
        var report = try report()
        report.credentials[0].usableUntil = report.takenAt + 600_000_000_000
        let text = await observer(report).observe().exposition.text
        let exposed = Set(
            text.split(separator: "\n").filter { $0.hasPrefix("# TYPE") }
                .map { String($0.split(separator: " ")[2]) })
        // There are no connections here whose login could be old.
        let absent = Set([MetricTable.oldestLogin.name, MetricTable.nextRenewal.name])
        #expect(exposed == Set(MetricTable.all.map(\.name)).subtracting(absent))
    }

    @Test func `counts failed logins by their kind`() async throws {
        let exposition = await observer(try report()).observe().exposition
        let failed = exposition.value(
            of: MetricTable.logins, "nowhere", "app", "failed", "unreachable")
        #expect(try #require(failed) >= 2, "one of each worker")
        #expect(exposition.value(of: MetricTable.logins, "nowhere", "app", "accepted", "") == 0)
    }

    /// Without what the server's connections are doing just now, which is one of few things.
    private func seriesOfClients(_ exposition: Exposition) -> Set<String> {
        let names = exposition.text.split(separator: "\n").filter { !$0.hasPrefix("#") }
            .map { String($0.prefix { $0 != " " }) }
        return Set(names.filter { !$0.hasPrefix(MetricTable.upstreamConnections.name) })
    }

    @Test func `has as many series with many hostile clients as with none`() async throws {
        let server = try startServer()
        defer { server.stop() }
        let observer = Observer(records: RecentRecords(), version: "1") {
            server.report(patience: .seconds(10))
        }
        let before = seriesOfClients(await observer.observe().exposition)
        let address = try #require(server.addresses[0].first)
        for number in 0..<8 {
            guard case .inProgress(let client) = Socket.connect(to: address) else {
                Issue.record("cannot connect")
                return
            }
            defer { Socket.close(client) }
            var entry = pollfd(fd: client, events: Int16(POLLOUT), revents: 0)
            #expect(poll(&entry, 1, 10_000) > 0)
            let hostile = """
                CLIENT SETNAME hostile-\(number)\r\nAUTH hostile-\(number) x\r\n\
                HELLO 3 AUTH hostile-\(number) y SETNAME hostile-\(number)\r\n\
                HOSTILE\(number)\r\nSELECT \(number)\r\nRESET\r\n*9999999999\r\n
                """
            #expect(send(client, hostile, hostile.utf8.count, 0) == hostile.utf8.count)
        }
        while server.report(patience: .seconds(10)).workers.reduce(
            0,
            { sum, worker in
                sum + worker.tally.byRoute[0].opened
            }) < 8
        {}
        let later = await Observer(records: RecentRecords(), version: "1") {
            server.report(patience: .seconds(10))
        }.observe().exposition
        #expect(seriesOfClients(later) == before)
        #expect(!later.text.lowercased().contains("hostile"))
    }
}
