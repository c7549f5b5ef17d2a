import Telemetry
import Testing

@Suite struct `The exposition` {
    @Test func `adds up samples with equal labels`() {
        var exposition = Exposition()
        exposition.add(MetricTable.sessionsRefused, 1, "no_rule")
        exposition.add(MetricTable.sessionsRefused, 2, "no_rule")
        #expect(exposition.value(of: MetricTable.sessionsRefused, "no_rule") == 3)
        #expect(exposition.seriesCount == 1)
        #expect(
            exposition.text.hasSuffix(
                "\nredis_auth_proxy_sessions_refused_total{reason=\"no_rule\"} 3\n"))
    }

    @Test func `escapes what stands in labels`() {
        var exposition = Exposition()
        exposition.add(MetricTable.buildInfo, 1, "a\"b\\c\nd")
        #expect(exposition.text.contains(#"{version="a\"b\\c\nd"} 1"#))
    }

    @Test func `writes histograms with their last bucket`() {
        var exposition = Exposition()
        exposition.add(
            MetricTable.latency,
            Exposition.Buckets(bounds: [(0.001, 2), (0.0025, 3)], count: 4, sum: 1.5))
        let lines = exposition.text.split(separator: "\n").dropFirst(2)
        #expect(
            Array(lines) == [
                "redis_auth_proxy_latency_seconds_bucket{le=\"0.001\"} 2",
                "redis_auth_proxy_latency_seconds_bucket{le=\"0.0025\"} 3",
                "redis_auth_proxy_latency_seconds_bucket{le=\"+Inf\"} 4",
                "redis_auth_proxy_latency_seconds_sum 1.5",
                "redis_auth_proxy_latency_seconds_count 4",
            ])
    }

    @Test func `has a table in which every name occurs once and says what it counts`() {
        #expect(Set(MetricTable.all.map(\.name)).count == MetricTable.all.count)
        for metric in MetricTable.all {
            #expect(metric.name.hasPrefix("redis_auth_proxy_"))
            #expect(metric.help.hasSuffix("."))
            #expect(metric.name.hasSuffix("_total") == (metric.kind == .counter))
        }
    }
}

@Suite struct `Recent records` {
    @Test func `are the last warnings and errors, as the log has them`() {
        let recent = RecentRecords()
        let logger = Log.make("test", level: .info, format: .json, descriptor: -1, recent: recent)
        logger.info("not this")
        logger.warning("a\nb", metadata: ["key": "two words"])
        #expect(recent.all.map(\.text) == [#"a\nb key="two words""#])
        #expect(recent.all.map(\.level) == [.warning])
    }

    @Test func `are bounded`() {
        let recent = RecentRecords()
        let logger = Log.make("test", level: .info, format: .text, descriptor: -1, recent: recent)
        for number in 0..<200 { logger.error("\(number)") }
        #expect(recent.all.count == RecentRecords.limit)
        #expect(recent.all.last?.text == "199")
    }
}
