// One record, one line, one write(2).
//
//   text   2025-01-31T09:26:53.589Z warning credentials: password file is readable by others mode=0644
//   json   {"time":"2025-01-31T09:26:53.589Z","level":"warning","label":"credentials","message":…,"mode":"0644"}
//
// Invariants: a line is at most `lineLimit` bytes including its newline, which is what a pipe takes
// without letting another thread's line in between (pipe(7), PIPE_BUF); the only newline in it is its
// last byte, whatever a message or a value contains. Control characters, line separators and the
// characters that turn the direction of text are escaped, so that a client's bytes can neither forge
// a record nor repaint the operator's terminal.
//
// No Foundation: this is reached from data-plane threads, and a date formatter would cost them more
// than everything else in the record.

import Glibc
package import Logging

/// Writes records to a descriptor as text or as JSON. A value: copying a logger copies it.
///
/// Safe from any thread. A line that cannot be written (a full disk, a closed pipe) is dropped:
/// there is nobody left to tell.
package struct LineLogHandler: LogHandler {
    /// Longest line in bytes, its newline included: PIPE_BUF on Linux.
    package static let lineLimit = 4096
    /// Longest message in escaped bytes; what is beyond is cut off and marked with `…`.
    package static let messageLimit = 2048
    /// Longest single value in escaped bytes; what is beyond is cut off and marked with `…`.
    package static let valueLimit = 1024

    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?
    /// The policy's, unless this logger was given its own.
    package var logLevel: Logger.Level {
        get { ownLevel ?? policy.level }
        set { ownLevel = newValue }
    }

    private let label: String
    private let policy: LogPolicy
    private var ownLevel: Logger.Level?
    private let descriptor: Int32
    /// Where warnings and what is worse are kept besides.
    private let recent: RecentRecords?

    package init(
        label: String, policy: LogPolicy, descriptor: Int32, recent: RecentRecords? = nil
    ) {
        self.recent = recent
        self.label = label
        self.policy = policy
        self.descriptor = descriptor
    }

    package init(label: String, level: Logger.Level, format: LogFormat, descriptor: Int32) {
        self.init(
            label: label, policy: LogPolicy(level: level, format: format), descriptor: descriptor)
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var fields = metadata
        if let provided = metadataProvider?.get() {
            fields.merge(provided) { _, newer in newer }
        }
        if let own = event.metadata {
            if fields.isEmpty { fields = own } else { fields.merge(own) { _, newer in newer } }
        }
        if let error = event.error {
            fields["error"] = .string("\(error)")
        }
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        write(
            line(
                seconds: Int64(now.tv_sec), nanoseconds: Int64(now.tv_nsec), level: event.level,
                message: event.message.description, fields: fields))
        if event.level >= .warning, let recent {
            recent.add(
                RecentRecords.Record(
                    seconds: Double(now.tv_sec) + Double(now.tv_nsec) / 1e9, level: event.level,
                    text: text(message: event.message.description, fields: fields)))
        }
    }

    /// A record without its time and level, on one line of at most `lineLimit` bytes.
    private func text(message: String, fields: Logger.Metadata) -> String {
        var line = LineBuffer(limit: Self.lineLimit)
        line.appendEscaped(message, limit: Self.messageLimit)
        Self.append(fields, to: &line, reserving: 0)
        return String(decoding: line.bytes, as: UTF8.self)
    }

    /// Fields as text, in the order of their names.
    private static func append(
        _ fields: Logger.Metadata, to line: inout LineBuffer, reserving: Int
    ) {
        for place in places(of: fields) {
            line.appendWhole(reserving: reserving) { field in
                field.append(UInt8(ascii: " "))
                field.appendEscaped(fields.keys[place], limit: valueLimit)
                field.append(UInt8(ascii: "="))
                field.appendQuotedIfNeeded(text(of: fields.values[place]), limit: valueLimit)
            }
        }
    }

    /// In the order of their names. Places and not the fields themselves: moving those about costs more
    /// than the rest of the line.
    private static func places(of fields: Logger.Metadata) -> [Logger.Metadata.Index] {
        let keys = fields.keys
        return fields.indices.sorted { keys[$0] < keys[$1] }
    }

    /// The record as bytes, newline included. Fields stand in the order of their names.
    package func line(
        seconds: Int64, nanoseconds: Int64, level: Logger.Level, message: String,
        fields: Logger.Metadata
    ) -> [UInt8] {
        var line = LineBuffer(limit: Self.lineLimit - 1)
        switch policy.format {
        case .text:
            line.appendTimestamp(seconds: seconds, nanoseconds: nanoseconds)
            line.append(" ")
            line.append(level.rawValue)
            line.append(" ")
            line.appendEscaped(label, limit: Self.valueLimit)
            line.append(": ")
            line.appendEscaped(message, limit: Self.messageLimit)
            Self.append(fields, to: &line, reserving: " …".utf8.count)
            if line.isCut { line.append(" …") }
        case .json:
            line.append("{\"time\":\"")
            line.appendTimestamp(seconds: seconds, nanoseconds: nanoseconds)
            line.append("\",\"level\":\"")
            line.append(level.rawValue)
            line.append("\",\"label\":")
            line.appendJSON(label, limit: Self.valueLimit)
            line.append(",\"message\":")
            line.appendJSON(message, limit: Self.messageLimit)
            let (keys, values) = (fields.keys, fields.values)
            for place in Self.places(of: fields) where !Self.reservedKeys.contains(keys[place]) {
                line.appendWhole(reserving: ",\"cut\":true}".utf8.count) { field in
                    field.append(UInt8(ascii: ","))
                    field.appendJSON(keys[place], limit: Self.valueLimit)
                    field.append(UInt8(ascii: ":"))
                    field.appendJSON(Self.text(of: values[place]), limit: Self.valueLimit)
                }
            }
            line.append(line.isCut ? ",\"cut\":true}" : "}")
        }
        line.bytes.append(UInt8(ascii: "\n"))
        return line.bytes
    }

    /// The names that a JSON record uses for itself; a field of that name would make the object
    /// mean two things.
    private static let reservedKeys: Set<String> = ["time", "level", "label", "message", "cut"]

    private static func text(of value: Logger.Metadata.Value) -> String {
        switch value {
        case .string(let text): text
        case .stringConvertible(let value): value.description
        case .array(let values):
            "[" + values.map(text(of:)).joined(separator: ", ") + "]"
        case .dictionary(let values):
            "{"
                + values.sorted { $0.key < $1.key }
                .map { "\($0.key): \(text(of: $0.value))" }.joined(separator: ", ") + "}"
        }
    }

    private func write(_ line: [UInt8]) {
        line.withUnsafeBytes { bytes in
            // A second round happens only when a signal interrupted the call.
            while Glibc.write(descriptor, bytes.baseAddress, bytes.count) == -1, errno == EINTR {}
        }
    }
}

/// A line being built: never longer than its limit, never with a newline inside.
private struct LineBuffer {
    var bytes: [UInt8] = []
    /// A field was left out because it did not fit any more.
    private(set) var isCut = false
    private let limit: Int

    init(limit: Int) {
        self.limit = limit
        bytes.reserveCapacity(256)
    }

    mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { bytes.append(contentsOf: $0) }
    }

    mutating func append(_ byte: UInt8) {
        bytes.append(byte)
    }

    /// Adds what `body` adds, or nothing of it when that would leave fewer than `reserving` bytes:
    /// half a field would be a lie in text and broken syntax in JSON.
    mutating func appendWhole(reserving: Int, _ body: (inout LineBuffer) -> Void) {
        let before = bytes.count
        body(&self)
        if bytes.count + reserving > limit {
            bytes.removeLast(bytes.count - before)
            isCut = true
        }
    }

    /// `2025-01-31T09:26:53.589Z`, from the civil calendar's arithmetic in `gmtime_r`.
    mutating func appendTimestamp(seconds: Int64, nanoseconds: Int64) {
        var time = time_t(seconds)
        var parts = tm()
        guard gmtime_r(&time, &parts) != nil else {
            append("\(seconds)")
            return
        }
        appendDigits(Int(parts.tm_year) + 1900, divisor: 1000)
        append(UInt8(ascii: "-"))
        appendDigits(Int(parts.tm_mon) + 1, divisor: 10)
        append(UInt8(ascii: "-"))
        appendDigits(Int(parts.tm_mday), divisor: 10)
        append(UInt8(ascii: "T"))
        appendDigits(Int(parts.tm_hour), divisor: 10)
        append(UInt8(ascii: ":"))
        appendDigits(Int(parts.tm_min), divisor: 10)
        append(UInt8(ascii: ":"))
        appendDigits(Int(parts.tm_sec), divisor: 10)
        append(UInt8(ascii: "."))
        appendDigits(Int(nanoseconds / 1_000_000), divisor: 100)
        append(UInt8(ascii: "Z"))
    }

    /// As many digits as `divisor` has; of a number with more, the first digit is wrong.
    private mutating func appendDigits(_ number: Int, divisor: Int) {
        var divisor = divisor
        while divisor > 0 {
            append(UInt8(ascii: "0") + UInt8(truncatingIfNeeded: number / divisor % 10))
            divisor /= 10
        }
    }

    /// As it is when it is one word, in quotes otherwise: `key=value with=signs` would be ambiguous.
    mutating func appendQuotedIfNeeded(_ text: String, limit: Int) {
        var text = text
        let needsQuotes = text.withUTF8 { bytes in
            bytes.isEmpty || bytes.contains { $0 <= 0x20 || $0 == 0x22 || $0 == 0x3d }
        }
        if needsQuotes { append(UInt8(ascii: "\"")) }
        appendEscaped(text, limit: limit, escapingQuotes: needsQuotes)
        if needsQuotes { append(UInt8(ascii: "\"")) }
    }

    /// A JSON string with its quotes.
    mutating func appendJSON(_ text: String, limit: Int) {
        append(UInt8(ascii: "\""))
        appendEscaped(text, limit: limit, escapingQuotes: true)
        append(UInt8(ascii: "\""))
    }

    /// Escapes as JSON does, which reads well in text too. `\` is always escaped: otherwise a text
    /// that contains `\n` as two characters would look like an escaped newline.
    mutating func appendEscaped(_ text: String, limit: Int, escapingQuotes: Bool = false) {
        // Nearly everything that is logged is plain ASCII, which needs no look at Unicode's tables.
        var text = text
        let isAppended = text.withUTF8 { plain in
            let isPlain =
                plain.count <= limit - "…".utf8.count
                && plain.allSatisfy { byte in
                    byte >= 0x20 && byte <= 0x7e && byte != UInt8(ascii: "\\")
                        && (byte != UInt8(ascii: "\"") || !escapingQuotes)
                }
            if isPlain { bytes.append(contentsOf: plain) }
            return isPlain
        }
        guard !isAppended else { return }
        let end = bytes.count + limit
        for scalar in text.unicodeScalars {
            let before = bytes.count
            switch scalar {
            case "\n": append("\\n")
            case "\r": append("\\r")
            case "\t": append("\\t")
            case "\\": append("\\\\")
            case "\"" where escapingQuotes: append("\\\"")
            case _ where Self.isUnprintable(scalar): appendUnicodeEscape(scalar)
            default: bytes.append(contentsOf: scalar.utf8)
            }
            if bytes.count > end - "…".utf8.count {
                bytes.removeLast(bytes.count - before)
                append("…")
                return
            }
        }
    }

    private mutating func appendUnicodeEscape(_ scalar: Unicode.Scalar) {
        for unit in scalar.utf16 {
            let digits = String(unit, radix: 16)
            append("\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits)
        }
    }

    /// Control characters (C0, DEL, C1), line and paragraph separators, zero-width and
    /// direction-changing characters, byte order marks, tags.
    private static func isUnprintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned: true
        default: false
        }
    }
}
