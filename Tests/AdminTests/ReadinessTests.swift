import Admin
import Identity
import Server
import Testing

@Suite struct `The proxy is` {
    @Test func `live when all workers answer, and says which does not`() throws {
        var report = try report()
        #expect(Readiness(report).stalled.isEmpty)
        report.late = [1]
        let readiness = Readiness(report)
        #expect(readiness.stalled.map(\.subject) == ["worker 1"])
        #expect(readiness.obstacles.contains { $0.subject == "worker 1" })
    }

    @Test func `neither started nor ready while a login fails, and says why`() throws {
        let readiness = Readiness(try report())
        #expect(readiness.unstarted.map(\.subject) == ["user app"])
        let obstacle = try #require(readiness.obstacles.first)
        #expect(obstacle.subject == "user app")
        #expect(obstacle.reason.contains("unreachable") && obstacle.reason.contains("127.0.0.1:1"))
    }

    @Test func `not ready without a credential`() throws {
        var report = try report()
        report.credentials[0] = CredentialReport()
        report.credentials[0].failure = "no such file"
        #expect(Readiness(report).obstacles.contains { $0.reason.contains("no such file") })
    }

    @Test func `not ready while a token is about to lapse`() throws {
        var report = try report()
        report.credentials[0].usableUntil = report.takenAt + 600_000_000_000
        #expect(!Readiness(report).obstacles.contains { $0.reason.contains("token") })
        report.credentials[0].usableUntil = report.takenAt + 10_000_000_000
        #expect(Readiness(report).obstacles.contains { $0.reason.contains("10 s more") })
        report.credentials[0].usableUntil = report.takenAt - 1
        #expect(Readiness(report).obstacles.contains { $0.reason.contains("expired") })
    }

    @Test func `not ready while it drains`() throws {
        var report = try report()
        report.isDraining = true
        #expect(Readiness(report).obstacles.contains { $0.reason == "it is draining" })
    }
}
