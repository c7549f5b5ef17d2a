// The answers of AWS's query protocol (STS) are XML; of one we want a handful of texts.

import Foundation
import FoundationXML
import Identity

/// The texts of elements, by their names; of repeated names the first.
struct XMLAnswer {
    let texts: [String: String]

    /// nil: the text is not XML.
    init?(_ body: Secret) {
        let collector = Collector()
        let parser = XMLParser(data: body.withBytes { Data($0) })
        parser.shouldResolveExternalEntities = false
        parser.delegate = collector
        guard parser.parse() else { return nil }
        texts = collector.texts
    }

    private final class Collector: NSObject, XMLParserDelegate {
        var texts: [String: String] = [:]
        private var text = ""

        func parser(
            _ parser: XMLParser, didStartElement name: String, namespaceURI: String?,
            qualifiedName: String?, attributes: [String: String]
        ) {
            text = ""
        }

        func parser(_ parser: XMLParser, foundCharacters characters: String) {
            text += characters
        }

        func parser(
            _ parser: XMLParser, didEndElement name: String, namespaceURI: String?,
            qualifiedName: String?
        ) {
            if texts[name] == nil { texts[name] = text.trimmed() }
            text = ""
        }
    }
}
