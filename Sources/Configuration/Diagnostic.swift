// What is wrong with a configuration, and exactly where.
//
// A diagnostic says what was wanted, what was got and what to do. It quotes a value only where a
// value of that setting cannot be a secret, and then escaped and shortened (`quoted`).

/// Where something was said: in a file, by a flag, in the environment.
package enum Position: Hashable, Sendable {
    /// Line and column count from 1; the column counts characters.
    case file(String, line: Int, column: Int)
    /// The file as a whole: it cannot be read.
    case wholeFile(String)
    /// A flag with its dashes, such as `--listen`.
    case flag(String)
    /// An environment variable.
    case environment(String)
}

extension Position: CustomStringConvertible {
    /// As compilers print it: `file:line:column`.
    package var description: String {
        switch self {
        case .file(let name, let line, let column): "\(escaped(name)):\(line):\(column)"
        case .wholeFile(let name): escaped(name)
        case .flag(let name): name
        case .environment(let name): "$\(name)"
        }
    }
}

/// One problem, at its place.
package struct Diagnostic: Hashable, Sendable {
    /// How bad it is.
    package enum Severity: String, Sendable {
        /// The configuration cannot be used.
        case error
        /// It can, and somebody should think about it.
        case warning
    }

    package let severity: Severity
    package let position: Position
    package let message: String
    /// The user whose access string it is about; nil: it is about something else.
    package let accessStringOf: String?

    package init(
        _ severity: Severity, at position: Position, _ message: String,
        accessStringOf user: String? = nil
    ) {
        self.severity = severity
        self.position = position
        self.message = message
        accessStringOf = user
    }
}

extension Diagnostic: CustomStringConvertible {
    /// One line: `file:line:column: error: what was wanted, what was got, what to do`.
    package var description: String { "\(position): \(severity.rawValue): \(message)" }
}

/// Thrown when a configuration cannot be used: everything that is wrong with it.
package struct InvalidConfiguration: Error, CustomStringConvertible {
    /// In the order of the file; at least one is an error, warnings are there too.
    package let diagnostics: [Diagnostic]

    /// A line for each.
    package var description: String {
        diagnostics.map(\.description).joined(separator: "\n")
    }
}

extension [Diagnostic] {
    /// What was not said in the file first, then from top to bottom; otherwise in the order found.
    func inOrder() -> [Diagnostic] {
        func key(_ diagnostic: Diagnostic) -> (Int, Int) {
            guard case .file(_, let line, let column) = diagnostic.position else { return (0, 0) }
            return (line, column)
        }
        return enumerated().sorted { left, right in
            let (leftKey, rightKey) = (key(left.element), key(right.element))
            return leftKey == rightKey ? left.offset < right.offset : leftKey < rightKey
        }.map(\.element)
    }
}

/// A value in quotes, on one line, and not longer than an operator wants to read.
func quoted(_ text: String) -> String {
    let shown = text.unicodeScalars.prefix(60)
    let rest = shown.endIndex < text.unicodeScalars.endIndex ? "…" : ""
    return "\"\(escaped(String(shown)))\(rest)\""
}

/// Without characters that move the cursor, break the line or turn its direction.
package func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned:
            result += scalar.escaped(asASCII: true)
        default:
            result.unicodeScalars.append(scalar)
        }
    }
    return result
}
