// What doctor found out, as lines for people and as JSON for programs.

/// One thing that was looked at.
struct DoctorStep {
    enum Outcome: String {
        case ok
        /// It works, and somebody should think about it.
        case warning
        /// It does not work, and nobody can become this user.
        case failed
        /// It could not be found out; `message` says why.
        case unknown
    }

    /// A value for programs.
    enum Fact {
        case text(String)
        case texts([String])
        case number(Int)
    }

    var name: String
    var outcome: Outcome
    /// What was found; what was wanted and got where it is not ok. Holds no secret.
    var message: String
    /// What to do.
    var advice: String?
    var facts: [(name: String, value: Fact)] = []
}

/// All steps about one thing.
struct DoctorSection {
    /// `configuration`, `listener` or `user`.
    var kind: String
    /// The user's or listener's name; nil for the configuration.
    var name: String?
    var steps: [DoctorStep] = []
}

/// Everything that was found.
struct DoctorReport {
    var sections: [DoctorSection] = []

    func count(_ outcome: DoctorStep.Outcome) -> Int {
        sections.reduce(0) { sum, section in
            sum + section.steps.count { $0.outcome == outcome }
        }
    }

    // MARK: For people

    static func heading(_ section: DoctorSection) -> String {
        section.name.map { "\(section.kind) \($0)" } ?? section.kind
    }

    /// A line or two, indented below the heading.
    static func lines(_ step: DoctorStep) -> String {
        let outcome = padded(step.outcome.rawValue, to: 9)
        let line = "  \(outcome)\(padded(step.name, to: 12))\(step.message)"
        return step.advice.map { "\(line)\n\(padded("", to: 23))→ \($0)" } ?? line
    }

    /// The last line: what there is to be done.
    var summary: String {
        let failed = count(.failed)
        let warnings = count(.warning)
        let unknown = count(.unknown)
        var parts: [String] = []
        if failed > 0 { parts.append("\(failed) failed") }
        if warnings > 0 { parts.append("\(warnings) warning\(warnings == 1 ? "" : "s")") }
        if unknown > 0 { parts.append("\(unknown) could not be found out") }
        return parts.isEmpty ? "all is well" : parts.joined(separator: ", ")
    }

    private static func padded(_ text: String, to width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }

    // MARK: For programs

    /// One JSON object, with a line break at its end.
    var json: String {
        let parts = sections.map { section in
            let name = section.name.map { ",\"name\":\(Self.quoted($0))" } ?? ""
            let steps = section.steps.map(Self.json).joined(separator: ",")
            return "{\"kind\":\(Self.quoted(section.kind))\(name),\"steps\":[\(steps)]}"
        }
        return "{\"ok\":\(count(.failed) == 0),\"failed\":\(count(.failed)),"
            + "\"warnings\":\(count(.warning)),\"unknown\":\(count(.unknown)),"
            + "\"sections\":[\(parts.joined(separator: ","))]}\n"
    }

    private static func json(_ step: DoctorStep) -> String {
        var parts = [
            "\"step\":\(quoted(step.name))", "\"outcome\":\(quoted(step.outcome.rawValue))",
            "\"message\":\(quoted(step.message))",
        ]
        if let advice = step.advice { parts.append("\"advice\":\(quoted(advice))") }
        for fact in step.facts {
            let value =
                switch fact.value {
                case .text(let text): quoted(text)
                case .texts(let texts): "[\(texts.map(quoted).joined(separator: ","))]"
                case .number(let number): "\(number)"
                }
            parts.append("\(quoted(fact.name)):\(value)")
        }
        return "{\(parts.joined(separator: ","))}"
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": result += "\\\(scalar)"
            case "\u{00}"..."\u{1f}", "\u{7f}":
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}
