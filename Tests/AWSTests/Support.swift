import AWS
import Foundation
import Identity

/// A file of Tests/Fixtures, found from this file's own place.
func fixture<Content: Decodable>(_ name: String, as type: Content.Type) throws -> Content {
    let here = "\(#filePath)"
    let tests = here.split(separator: "/", omittingEmptySubsequences: false).dropLast(2)
    let path = tests.joined(separator: "/") + "/Fixtures/\(name)"
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(type, from: try Data(contentsOf: URL(filePath: path)))
}

extension Secret {
    /// For comparing in tests.
    var text: String { withBytes { String(decoding: $0, as: UTF8.self) } }

    convenience init(_ text: String) {
        self.init(text.utf8)
    }
}
