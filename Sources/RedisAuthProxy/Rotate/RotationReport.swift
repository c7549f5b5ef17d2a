// What a rotation says while it is under way: lines for people, or JSON for scripts, a line at a time.

import AWS
import Configuration
import Rotation

/// Writes to standard output what happens, as it happens.
struct RotationReport {
    let isJSON: Bool

    func begin(secret: String, version: String, isResumed: Bool) {
        guard !isJSON else {
            return write([
                ("event", "begin"), ("secret", secret), ("version", version),
                ("resumed", isResumed ? "true" : "false"),
            ])
        }
        say(
            "secret \(escaped(secret)), version \(version)"
                + (isResumed ? ", which an earlier rotation began" : ""))
    }

    func note(_ note: RotationNote) {
        guard !isJSON else {
            return write([
                ("event", note.kind.rawValue), ("step", note.step.rawValue),
                ("message", note.message),
            ])
        }
        let kind = padded(note.kind.rawValue, to: 11)
        say("  \(kind)\(padded(note.step.rawValue, to: 14))\(escaped(note.message))")
    }

    /// - Parameter message: holds no secret.
    func end(_ outcome: String, _ message: String? = nil) {
        guard isJSON else { return }
        write([("event", outcome)] + (message.map { [("message", $0)] } ?? []))
    }

    private func write(_ members: [(String, String)]) {
        var line = WipedBuffer(capacity: 512)
        for (index, member) in members.enumerated() {
            line.append(index == 0 ? "{" : ",")
            line.appendJSON(member.0)
            line.append(":")
            // Of these two texts alone it is no text.
            if member.0 == "resumed" { line.append(member.1) } else { line.appendJSON(member.1) }
        }
        line.append("}")
        say(line.withBytes { String(decoding: $0, as: UTF8.self) })
    }

    private func padded(_ text: String, to width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
}
