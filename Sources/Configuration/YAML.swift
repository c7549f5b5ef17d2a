// YAML text to nodes with positions.
//
// This reads the events of libyaml, the parser inside Yams, and not Yams's own tree: Yams stops at
// the first duplicate key, recurses as deep as the text nests, and hashes aliased keys in
// exponential time. A configuration needs none of YAML's cleverness, so what makes YAML dangerous
// is refused at its position: anchors, aliases and merges (a page of them can mean gigabytes), tags,
// keys that are no text, and more nesting or more bytes than any configuration has.
//
// Scalars stay texts: `min_version: 1.2` is not a floating-point number here, and `tls: off` no
// Boolean.

internal import CYaml

/// Reads one YAML document. Every problem that leaves a tree is reported and passed over; a syntax
/// error ends the reading.
struct YAMLReader {
    /// Largest document in bytes. Reached: an error, before anything is parsed.
    static let sizeLimit = 1 << 20
    /// Deepest nesting. The settings need six; the stack stands much more.
    static let depthLimit = 32

    private(set) var diagnostics: [Diagnostic] = []
    private let name: String
    /// At a fixed address, because libyaml keeps a pointer from the parser to itself.
    private let parser: UnsafeMutablePointer<yaml_parser_t>

    /// The document had an error that ends the reading; it is in `diagnostics`.
    private struct Stop: Error {}

    /// - Parameter name: the file's, for positions.
    static func read(_ text: [UInt8], named name: String) -> (root: Node?, [Diagnostic]) {
        guard text.count <= sizeLimit else {
            let message = "wanted at most \(sizeLimit) bytes of configuration, got more"
            return (nil, [Diagnostic(.error, at: .wholeFile(name), message)])
        }
        let parser = UnsafeMutablePointer<yaml_parser_t>.allocate(capacity: 1)
        defer { parser.deallocate() }
        parser.initialize(to: yaml_parser_t())
        var reader = YAMLReader(name: name, parser: parser)
        let root = reader.root(of: text)
        return (root, reader.diagnostics)
    }

    private init(name: String, parser: UnsafeMutablePointer<yaml_parser_t>) {
        self.name = name
        self.parser = parser
    }

    private mutating func root(of text: [UInt8]) -> Node? {
        guard yaml_parser_initialize(parser) == 1 else {
            report(.wholeFile(name), "not enough memory to read it")
            return nil
        }
        defer { yaml_parser_delete(parser) }
        return text.withUnsafeBufferPointer { bytes in
            // Fixed, because libyaml would otherwise guess UTF-16 from the first bytes.
            yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
            yaml_parser_set_input_string(parser, bytes.baseAddress, bytes.count)
            do throws(Stop) {
                return try document(bytes)
            } catch {
                return nil
            }
        }
    }

    private mutating func document(_ text: UnsafeBufferPointer<UInt8>) throws(Stop) -> Node {
        _ = try next(text)  // the stream's start
        let start = try next(text)
        guard start.type == YAML_DOCUMENT_START_EVENT else {
            return Node(
                content: .scalar("", isPlain: true), position: .file(name, line: 1, column: 1))
        }
        let root = try node(next(text), text, depth: 0)
        _ = try next(text)  // the document's end
        let end = try next(text)
        if end.type != YAML_STREAM_END_EVENT {
            report(
                end.position(in: name),
                "wanted one YAML document, got a second: remove the line `---` and what follows it")
        }
        return root
    }

    private mutating func node(
        _ event: Event, _ text: UnsafeBufferPointer<UInt8>, depth: Int
    ) throws(Stop) -> Node {
        let position = event.position(in: name)
        guard depth < Self.depthLimit else {
            report(
                position,
                "wanted at most \(Self.depthLimit) levels of nesting, got more: no setting needs them"
            )
            throw Stop()
        }
        if event.hasAnchor {
            report(
                position, "wanted the value itself, got a YAML anchor or alias: write the value out"
            )
        }
        if event.hasTag {
            report(position, "wanted a plain value, got a YAML tag: remove the word after `!`")
        }
        switch event.type {
        case YAML_SEQUENCE_START_EVENT:
            var items: [Node] = []
            while true {
                let item = try next(text)
                if item.type == YAML_SEQUENCE_END_EVENT { break }
                items.append(try node(item, text, depth: depth + 1))
            }
            return Node(content: .sequence(items), position: position)
        case YAML_MAPPING_START_EVENT:
            return Node(content: .mapping(try entries(text, depth: depth)), position: position)
        default:
            return Node(
                content: .scalar(event.text, isPlain: event.isPlain), position: position,
                textOffset: event.textOffset)
        }
    }

    private mutating func entries(
        _ text: UnsafeBufferPointer<UInt8>, depth: Int
    ) throws(Stop) -> [Node.Entry] {
        var entries: [Node.Entry] = []
        var lineOfKey: [String: Int] = [:]
        while true {
            let event = try next(text)
            if event.type == YAML_MAPPING_END_EVENT { return entries }
            let key = try node(event, text, depth: depth + 1)
            let value = try node(next(text), text, depth: depth + 1)
            guard case .scalar(let word, _) = key.content else {
                report(key.position, "wanted a word as a key, got \(key.kind)")
                continue
            }
            if let line = lineOfKey[word] {
                report(
                    key.position,
                    "wanted each key once, got \(quoted(word)) again (first in line \(line)):"
                        + " remove one of them")
                continue
            }
            lineOfKey[word] = event.line
            entries.append(Node.Entry(key: word, keyPosition: key.position, value: value))
        }
    }

    /// The next event, copied out of libyaml's memory.
    private mutating func next(_ text: UnsafeBufferPointer<UInt8>) throws(Stop) -> Event {
        var event = yaml_event_t()
        guard yaml_parser_parse(parser, &event) == 1 else {
            reportSyntaxError(text)
            throw Stop()
        }
        defer { yaml_event_delete(&event) }
        return Event(event)
    }

    private mutating func report(_ position: Position, _ message: String) {
        diagnostics.append(Diagnostic(.error, at: position, message))
    }

    private mutating func reportSyntaxError(_ text: UnsafeBufferPointer<UInt8>) {
        let problem = parser.pointee.problem.map { String(cString: $0) } ?? "not enough memory"
        var line = Int(clamping: parser.pointee.problem_mark.line)
        var column = Int(clamping: parser.pointee.problem_mark.column)
        if parser.pointee.error == YAML_READER_ERROR {
            // The reader runs ahead of the scanner and knows only the offset of the bad bytes.
            let before = text.prefix(Int(clamping: parser.pointee.problem_offset))
            line = before.count { $0 == UInt8(ascii: "\n") }
            column = before.reversed().prefix { $0 != UInt8(ascii: "\n") }.count {
                $0 & 0xc0 != 0x80
            }
        }
        var message = "wanted YAML, got a text that is none: \(problem)"
        if let context = parser.pointee.context {
            let contextLine = Int(clamping: parser.pointee.context_mark.line) + 1
            message += " (\(String(cString: context)) that begins in line \(contextLine))"
        }
        if problem.contains("cannot start any token") {
            message += ": indent with spaces, and put quotes around a text that begins like this"
        }
        report(.file(name, line: line + 1, column: column + 1), message)
    }
}

/// What is used of one of libyaml's events.
private struct Event {
    let type: yaml_event_type_t
    let line: Int
    let column: Int
    private(set) var text = ""
    private(set) var isPlain = false
    private(set) var textOffset: Int?
    private(set) var hasAnchor = false
    private(set) var hasTag = false

    /// Copies; the original may be deleted afterwards.
    init(_ event: yaml_event_t) {
        type = event.type
        line = Int(clamping: event.start_mark.line) + 1
        column = Int(clamping: event.start_mark.column) + 1
        switch type {
        case YAML_ALIAS_EVENT:
            hasAnchor = true
        case YAML_SCALAR_EVENT:
            let scalar = event.data.scalar
            text = String(
                decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length),
                as: UTF8.self)
            isPlain = scalar.style == YAML_PLAIN_SCALAR_STYLE
            // As long in the file as it reads, but for quotes: no escapes and no line breaks in it.
            let quotes = isPlain ? 0 : 1
            let width = Int(clamping: event.end_mark.column) + 1 - column
            if event.end_mark.line == event.start_mark.line,
                width == text.unicodeScalars.count + 2 * quotes
            {
                textOffset = quotes
            }
            hasAnchor = scalar.anchor != nil
            hasTag = scalar.tag != nil
        case YAML_SEQUENCE_START_EVENT:
            hasAnchor = event.data.sequence_start.anchor != nil
            hasTag = event.data.sequence_start.tag != nil
        case YAML_MAPPING_START_EVENT:
            hasAnchor = event.data.mapping_start.anchor != nil
            hasTag = event.data.mapping_start.tag != nil
        default:
            break
        }
    }

    func position(in name: String) -> Position { .file(name, line: line, column: column) }
}
