// Samples of metrics, and their text as Prometheus reads it.
//
// Source: Prometheus, "Exposition formats", text format 0.0.4.

/// Samples of one moment. Those of one metric with equal labels are added up, so that a series occurs
/// once whatever the configuration repeats.
package struct Exposition: Sendable {
    /// A histogram in the shape in which it is exposed.
    package struct Buckets: Sendable {
        /// Upper bound and how many are not above it, in growing order; without the last, +Inf.
        package var bounds: [(bound: Double, count: UInt64)]
        package var count: UInt64
        package var sum: Double

        package init(bounds: [(bound: Double, count: UInt64)], count: UInt64, sum: Double) {
            self.bounds = bounds
            self.count = count
            self.sum = sum
        }
    }

    private var values: [Metric: [[String]: Double]] = [:]
    /// In the order in which they were first added.
    private var order: [Metric: [[String]]] = [:]
    private var histograms: [Metric: Buckets] = [:]

    package init() {}

    /// Adds a sample.
    ///
    /// - Parameter labels: values for the metric's labels, in their order.
    package mutating func add(_ metric: Metric, _ value: Double, _ labels: String...) {
        precondition(
            labels.count == metric.labels.count && metric.kind != .histogram,
            "\(metric.name) has the labels \(metric.labels)")
        if values[metric]?[labels] == nil { order[metric, default: []].append(labels) }
        values[metric, default: [:]][labels, default: 0] += value
    }

    package mutating func add(_ metric: Metric, _ buckets: Buckets) {
        precondition(metric.kind == .histogram && metric.labels.isEmpty)
        histograms[metric] = buckets
    }

    /// What a series' value is; nil: it has none. For tests.
    package func value(of metric: Metric, _ labels: String...) -> Double? {
        values[metric]?[labels]
    }

    /// How many series there are.
    package var seriesCount: Int { values.values.reduce(0) { $0 + $1.count } }

    /// As Prometheus reads it, metrics in the order of their table. One without samples is left out.
    package var text: String {
        var text = ""
        for metric in MetricTable.all {
            if let buckets = histograms[metric] {
                head(metric, &text)
                for (bound, count) in buckets.bounds {
                    text += "\(metric.name)_bucket{le=\"\(number(bound))\"} \(count)\n"
                }
                text += "\(metric.name)_bucket{le=\"+Inf\"} \(buckets.count)\n"
                text += "\(metric.name)_sum \(number(buckets.sum))\n"
                text += "\(metric.name)_count \(buckets.count)\n"
            }
            guard let series = order[metric] else { continue }
            head(metric, &text)
            for labels in series {
                text += metric.name
                if !labels.isEmpty {
                    let pairs = zip(metric.labels, labels).map { "\($0)=\"\(escaped($1))\"" }
                    text += "{" + pairs.joined(separator: ",") + "}"
                }
                text += " \(number(values[metric]?[labels] ?? 0))\n"
            }
        }
        return text
    }

    private func head(_ metric: Metric, _ text: inout String) {
        text += "# HELP \(metric.name) \(metric.help)\n"
        text += "# TYPE \(metric.name) \(metric.kind.rawValue)\n"
    }

    /// Whole numbers without a fraction, whatever their size.
    private func number(_ value: Double) -> String {
        if let whole = Int64(exactly: value) { return "\(whole)" }
        return "\(value)"
    }

    private func escaped(_ value: String) -> String {
        var result = ""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\\": result += "\\\\"
            case "\"": result += "\\\""
            case "\n": result += "\\n"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
