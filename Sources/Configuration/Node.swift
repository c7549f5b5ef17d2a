/// A piece of configuration with its place: what a file, flags and the environment all become
/// before anybody asks what it means.
struct Node: Sendable {
    enum Content: Sendable {
        /// A text as written, without its quotes. A number or a `true` is a text until a setting
        /// wants something else. `isPlain`: it had no quotes, so an empty one means "nothing".
        case scalar(String, isPlain: Bool)
        case sequence([Node])
        /// In the order written; keys are unique.
        case mapping([Entry])
    }

    struct Entry: Sendable {
        var key: String
        var keyPosition: Position
        var value: Node
    }

    var content: Content
    var position: Position
    /// How far behind `position` a text's first character stands; nil where the text does not stand
    /// in one line and as it reads, so that a place in it is no place in the file.
    var textOffset: Int?

    /// What it is, in words that never show the value.
    var kind: String {
        switch content {
        case .scalar("", isPlain: true), .scalar("~", isPlain: true),
            .scalar("null", isPlain: true):
            "nothing"
        case .scalar: "a text"
        case .sequence: "a list"
        case .mapping: "a mapping"
        }
    }

    /// The place of a character of the text, as near as it can be told.
    func position(ofCharacter offset: Int) -> Position {
        guard let textOffset, case .file(let name, let line, let column) = position else {
            return position
        }
        return .file(name, line: line, column: column + textOffset + offset)
    }

    static func text(_ text: String, at position: Position) -> Node {
        Node(content: .scalar(text, isPlain: false), position: position)
    }

    static func list(_ items: [Node], at position: Position) -> Node {
        Node(content: .sequence(items), position: position)
    }

    /// Keys get the position of their value.
    static func mapping(_ entries: [(String, Node)], at position: Position) -> Node {
        let entries = entries.map {
            Entry(key: $0.0, keyPosition: $0.1.position, value: $0.1)
        }
        return Node(content: .mapping(entries), position: position)
    }

    /// Puts `value` at a path of keys, in place of what is there, and makes what is missing on the
    /// way. What is in the way and no mapping stays: it is reported when it is read.
    mutating func set(_ path: ArraySlice<String>, to value: Node) {
        guard let key = path.first else {
            self = value
            return
        }
        if kind == "nothing" { content = .mapping([]) }
        guard case .mapping(var entries) = content else { return }
        if let index = entries.firstIndex(where: { $0.key == key }) {
            entries[index].value.set(path.dropFirst(), to: value)
        } else {
            var made = Node(content: .mapping([]), position: value.position)
            made.set(path.dropFirst(), to: value)
            entries.append(Entry(key: key, keyPosition: value.position, value: made))
        }
        content = .mapping(entries)
    }
}
