// What the console answers, and how it is written.
//
//     RESP2 (redis-cli, scripts)        RESP3 (redis-cli --json, programs)
//     user  sessions  paused            [{"user":"app","sessions":12,"paused":false}, …]
//     app   12        no
//
// In RESP2 a table is an array of lines, each a simple string: redis-cli shows those as they are, and
// writes nothing but them into a pipe. In RESP3 it is an array of maps.

/// One cell.
enum Cell: Equatable, Sendable {
    case text(String)
    case number(Int)
    case flag(Bool)
    /// Nothing to say.
    case none

    static func count(_ number: UInt64) -> Cell { .number(Int(clamping: number)) }

    static func text(_ text: String?) -> Cell { text.map { .text($0) } ?? .none }

    fileprivate var word: String {
        switch self {
        case .text(let text): text.isEmpty ? "-" : printable(text)
        case .number(let number): "\(number)"
        case .flag(let flag): flag ? "yes" : "no"
        case .none: "-"
        }
    }

    fileprivate var resp3: String {
        switch self {
        case .text(let text): bulk(text)
        case .number(let number): ":\(number)\r\n"
        case .flag(let flag): flag ? "#t\r\n" : "#f\r\n"
        case .none: "_\r\n"
        }
    }
}

/// Rows under names.
struct ConsoleTable: Equatable, Sendable {
    let columns: [String]
    private(set) var rows: [[Cell]] = []

    init(_ columns: String...) { self.columns = columns }

    /// As many cells as there are columns.
    mutating func add(_ cells: Cell...) {
        precondition(cells.count == columns.count)
        rows.append(cells)
    }

    /// What stands in lines: the names, then the rows, in columns.
    var lines: [String] {
        let words = [columns] + rows.map { $0.map(\.word) }
        let widths = columns.indices.map { column in
            words.map { $0[column].unicodeScalars.count }.max() ?? 0
        }
        return words.map { row in
            var line = ""
            for (word, width) in zip(row, widths) {
                line += word + String(repeating: " ", count: width - word.unicodeScalars.count + 2)
            }
            while line.last == " " { line.removeLast() }
            return line
        }
    }
}

/// An answer of the console's.
enum ConsoleReply: Equatable, Sendable {
    case status(String)
    /// Without a prefix: ERR stands before it.
    case error(String)
    case table(ConsoleTable)
    /// Lines for people.
    case lines([String])
    case map([(String, Cell)])
    case nothing

    static func == (left: ConsoleReply, right: ConsoleReply) -> Bool {
        left.bytes(protocolVersion: 3) == right.bytes(protocolVersion: 3)
    }

    /// - Parameter protocolVersion: 2 or 3.
    func bytes(protocolVersion: Int) -> [UInt8] {
        Array(text(isRESP3: protocolVersion == 3).utf8)
    }

    private func text(isRESP3: Bool) -> String {
        switch self {
        case .status(let text): return "+\(printable(text))\r\n"
        case .error(let text): return "-ERR \(printable(text))\r\n"
        case .lines(let lines): return array(lines.map { "+\(printable($0))\r\n" })
        case .table(let table) where isRESP3:
            return array(table.rows.map { map(Array(zip(table.columns, $0))) })
        case .table(let table): return array(table.lines.map { "+\($0)\r\n" })
        case .map(let entries) where isRESP3: return map(entries)
        case .map(let entries):
            return array(
                entries.flatMap { name, cell in
                    if case .number = cell { return [bulk(name), cell.resp3] }
                    return [bulk(name), bulk(cell.word)]
                })
        case .nothing: return "*0\r\n"
        }
    }

    private func array(_ elements: [String]) -> String {
        "*\(elements.count)\r\n" + elements.joined()
    }

    private func map(_ entries: [(String, Cell)]) -> String {
        "%\(entries.count)\r\n" + entries.map { bulk($0) + $1.resp3 }.joined()
    }
}

private func bulk(_ text: String) -> String { "$\(text.utf8.count)\r\n\(text)\r\n" }

/// One line, whatever stood in it.
private func printable(_ text: String) -> String {
    String(
        String.UnicodeScalarView(
            text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? "?" : $0 }))
}
