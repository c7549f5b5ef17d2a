// One setting = one definition: how its text is read, what it may be, what it is by default, what it
// means. The reader of files, the overriding flags and environment variables, `check --help` and the
// documentation all work from it; the default is not repeated here but read from `Root`'s own.

/// One key of a section whose settings become a `Root`.
struct Setting<Root: Section>: Sendable {
    let name: String
    /// What is accepted, as it stands in messages after "wanted".
    let wanted: String
    /// The default as it would be written; nil if there is none.
    let defaultText: String?
    /// Without it the section means nothing.
    let isRequired: Bool
    /// Whether a flag and an environment variable can set it over the file.
    let isOverridable: Bool
    /// What it does, for people who do not know the code: a sentence.
    let sentence: String
    /// A value of this setting must not stand in a message: people put passwords there by mistake.
    let isSensitive: Bool
    /// Reads a text into the section. nil: not a text but a structure, which `SettingsReader` reads.
    let assign: (@Sendable (String, inout Root) throws(Unwanted) -> Void)?
    /// What is in use, as it would be written; nil if nothing is. nil itself: it is not to be told
    /// from the section alone.
    var text: (@Sendable (Root) -> String?)? = nil

    func showing(_ text: @escaping @Sendable (Root) -> String?) -> Setting {
        var setting = self
        setting.text = text
        return setting
    }

    /// A list, a mapping, or a reference to another section.
    static func structure(
        _ name: String, _ wanted: String, defaultText: String? = nil, isRequired: Bool = false,
        _ sentence: String
    ) -> Setting {
        Setting(
            name: name, wanted: wanted, defaultText: defaultText, isRequired: isRequired,
            isOverridable: false, sentence: sentence, isSensitive: false, assign: nil)
    }

    static func duration(
        _ name: String, _ keyPath: Member<Root, Duration>,
        _ range: ClosedRange<Duration>, inWholeSeconds: Bool = false, isOverridable: Bool = false,
        _ sentence: String
    ) -> Setting {
        let bounds = "\(range.lowerBound.settingText) to \(range.upperBound.settingText)"
        return scalar(
            name, "a duration from \(bounds)", Root.defaults[keyPath: keyPath].settingText,
            isOverridable: isOverridable, sentence
        ) { (word, root) throws(Unwanted) in
            let value = try Duration(setting: word)
            guard range.contains(value) else { throw Unwanted() }
            guard !inWholeSeconds || value.components.attoseconds == 0 else {
                throw Unwanted(advice: "write whole seconds")
            }
            root[keyPath: keyPath] = value
        }.showing { $0[keyPath: keyPath].settingText }
    }

    static func size(
        _ name: String, _ keyPath: Member<Root, ByteCount>,
        _ range: ClosedRange<ByteCount>, _ sentence: String
    ) -> Setting {
        let bounds = "\(range.lowerBound.settingText) to \(range.upperBound.settingText)"
        return scalar(
            name, "a size from \(bounds)", Root.defaults[keyPath: keyPath].settingText, sentence
        ) { (word, root) throws(Unwanted) in
            let value = try ByteCount(setting: word)
            guard range.contains(value) else { throw Unwanted() }
            root[keyPath: keyPath] = value
        }.showing { $0[keyPath: keyPath].settingText }
    }

    static func number(
        _ name: String, _ keyPath: Member<Root, Int>,
        _ range: ClosedRange<Int>, isOverridable: Bool = false, _ sentence: String
    ) -> Setting {
        scalar(
            name, "a number from \(range.lowerBound) to \(range.upperBound)",
            "\(Root.defaults[keyPath: keyPath])", isOverridable: isOverridable, sentence
        ) { (word, root) throws(Unwanted) in
            let value = try Int(setting: word)
            guard range.contains(value) else { throw Unwanted() }
            root[keyPath: keyPath] = value
        }.showing { "\($0[keyPath: keyPath])" }
    }

    /// One of an enumeration's words.
    static func choice<Choice>(
        _ name: String, _ keyPath: Member<Root, Choice>,
        isOverridable: Bool = false, _ sentence: String
    ) -> Setting
    where Choice: RawRepresentable & CaseIterable & SendableMetatype, Choice.RawValue == String {
        let words = Choice.allCases.map(\.rawValue)
        return scalar(
            name, words.joined(separator: words.count == 2 ? " or " : ", "),
            Root.defaults[keyPath: keyPath].rawValue, isOverridable: isOverridable, sentence
        ) { (word, root) throws(Unwanted) in
            guard let value = Choice(rawValue: word) else {
                let near = suggestion(for: word, among: Choice.allCases.map(\.rawValue))
                throw Unwanted(advice: near.map { "did you mean \($0)?" })
            }
            root[keyPath: keyPath] = value
        }.showing { $0[keyPath: keyPath].rawValue }
    }

    /// A text that is not empty; `without` is what its absence means.
    static func optionalText(
        _ name: String, _ keyPath: Member<Root, String?>, _ wanted: String,
        without: String, _ sentence: String
    ) -> Setting {
        scalar(name, wanted, nil, "\(sentence) \(without)") { (word, root) throws(Unwanted) in
            root[keyPath: keyPath] = try plainText(word)
        }.showing { $0[keyPath: keyPath] }
    }

    /// Any text with a reader of its own.
    static func scalar(
        _ name: String, _ wanted: String, _ defaultText: String?, isRequired: Bool = false,
        isOverridable: Bool = false, isSensitive: Bool = false, _ sentence: String,
        _ assign: @escaping @Sendable (String, inout Root) throws(Unwanted) -> Void
    ) -> Setting {
        Setting(
            name: name, wanted: wanted, defaultText: defaultText, isRequired: isRequired,
            isOverridable: isOverridable, sentence: sentence, isSensitive: isSensitive,
            assign: assign)
    }
}

/// Which of a section's values a setting sets.
typealias Member<Root, Value> = any WritableKeyPath<Root, Value> & Sendable

/// A group of settings that stand under one key.
protocol Section: SendableMetatype {
    /// Everything at its default.
    static var defaults: Self { get }
    /// Its keys, in the order in which they are documented.
    static var settings: [Setting<Self>] { get }
}

/// A path or a name: not empty and without control characters.
func plainText(_ word: String) throws(Unwanted) -> String {
    guard !word.isEmpty else { throw Unwanted(advice: "write it, or leave the key out") }
    guard !word.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f }) else {
        throw Unwanted(advice: "control characters do not belong here")
    }
    return word
}
