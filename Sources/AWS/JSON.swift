// JSON as AWS's services and credential sources write it, and the credential that most of it is.

import FoundationEssentials
import Identity

/// A value of JSON, as far as it matters here.
enum JSONValue: Decodable, Equatable {
    case text(String)
    case number(Double)
    case object([String: JSONValue])
    case other

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let text = try? container.decode(String.self) {
            self = .text(text)
        } else if let number = try? container.decode(Double.self) {
            self = .number(number)
        } else if let object = try? container.decode([String: JSONValue].self) {
            self = .object(object)
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
