// JSON as AWS's services and credential sources write it, and the credential that most of it is.

import FoundationEssentials
package import Identity

/// A value of JSON, as far as it matters here.
enum JSONValue: Decodable, Equatable, Sendable {
    case text(String)
    case number(Double)
    case flag(Bool)
    case object([String: JSONValue])
    case list([JSONValue])
    case other

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let text = try? container.decode(String.self) {
            self = .text(text)
        } else if let number = try? container.decode(Double.self) {
            self = .number(number)
        } else if let flag = try? container.decode(Bool.self) {
            self = .flag(flag)
        } else if let object = try? container.decode([String: JSONValue].self) {
            self = .object(object)
        } else if let list = try? container.decode([JSONValue].self) {
            self = .list(list)
        } else {
            self = .other
        }
    }
}

typealias JSONObject = [String: JSONValue]

extension JSONObject {
    /// nil: the bytes are not JSON, or not an object.
    init?(_ json: Secret) {
        guard let object = try? decode(JSONObject.self, json) else { return nil }
        self = object
    }

    /// A text that is not empty.
    func text(_ key: String) -> String? {
        if case .text(let text)? = self[key], !text.isEmpty { text } else { nil }
    }
}

extension WipedBuffer {
    /// A text of JSON, in its quotes. What is not ASCII stays as it is.
    package mutating func appendJSON(_ text: UnsafeRawBufferPointer) {
        append(byte: UInt8(ascii: "\""))
        for byte in text {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                append(byte: UInt8(ascii: "\\"))
                append(byte: byte)
            case 0..<0x20, 0x7f:
                append("\\u00")
                append(byte: hexDigit(byte >> 4))
                append(byte: hexDigit(byte & 15))
            default: append(byte: byte)
            }
        }
        append(byte: UInt8(ascii: "\""))
    }

    package mutating func appendJSON(_ text: String) {
        var text = text
        text.withUTF8 { appendJSON(UnsafeRawBufferPointer($0)) }
    }

    package mutating func appendJSON(_ secret: Secret) {
        secret.withBytes { appendJSON($0) }
    }

    /// `{"name":"text",…,"name":["text",…]}`; secrets may be among the texts.
    mutating func appendJSON(
        _ members: [(name: String, value: Secret)], lists: [(name: String, texts: [String])] = []
    ) {
        append("{")
        for (index, member) in members.enumerated() {
            if index > 0 { append(",") }
            appendJSON(member.name)
            append(":")
            appendJSON(member.value)
        }
        for list in lists {
            append(",")
            appendJSON(list.name)
            append(":")
            appendJSON(list.texts.map { Secret($0.utf8) })
        }
        append("}")
    }

    /// `["text",…]`; the texts may be secrets.
    mutating func appendJSON(_ texts: [Secret]) {
        append("[")
        for (index, text) in texts.enumerated() {
            if index > 0 { append(",") }
            appendJSON(text)
        }
        append("]")
    }
}

extension AWSCredential {
    /// A credential in the spelling of instance metadata, containers and credential processes.
    ///
    /// - Parameters:
    ///   - tokenKey: `Token` or `SessionToken`.
    ///   - source: in words; stands in the failure too.
    /// - Throws: `unavailable` when something is missing: the next answer may be better.
    init(
        _ object: JSONObject?, tokenKey: String, source: String, isStaticallyStable: Bool = false
    ) throws(AWSFailure) {
        guard let object else {
            throw AWSFailure(
                .unavailable, "\(source): wanted JSON with a credential, got something else")
        }
        guard let key = object.text("AccessKeyId"), let secret = object.text("SecretAccessKey")
        else {
            throw AWSFailure(
                .unavailable, "\(source): wanted AccessKeyId and SecretAccessKey, got not both")
        }
        var expiry: WallTime?
        if let value = object["Expiration"], value != .other {
            guard case .text(let text) = value, let time = WallTime(iso8601: text) else {
                throw AWSFailure(
                    .unavailable,
                    "\(source): wanted a date such as 2026-01-31T12:00:00Z as Expiration, got"
                        + " something else")
            }
            expiry = time
        }
        self.init(
            accessKeyID: key, secretAccessKey: Secret(secret.utf8),
            sessionToken: object.text(tokenKey).map { Secret($0.utf8) }, expiry: expiry,
            source: source, isStaticallyStable: isStaticallyStable)
    }
}

/// Reads JSON. What the decoder makes on its way is not wiped.
func decode<Content: Decodable>(_ type: Content.Type, _ json: Secret) throws -> Content {
    try JSONDecoder().decode(type, from: json.withBytes { Data($0) })
}

/// The texts of an object that are not empty, by their keys; nil if the bytes are no JSON object.
package func jsonTexts(of json: Secret) -> [String: String]? {
    JSONObject(json)?.compactMapValues { value in
        if case .text(let text) = value, !text.isEmpty { text } else { nil }
    }
}
