import AWS
import Testing

private struct Resolved: Decodable, CustomTestStringConvertible {
    let service: String
    let region: String
    let fips: Bool
    let dualStack: Bool
    let host: String

    var testDescription: String {
        "\(service) \(region)\(fips ? " FIPS" : "")\(dualStack ? " dual stack" : "")"
    }
}

private let resolved = try! fixture("endpoints.json", as: [Resolved].self)

@Suite struct EndpointTests {
    @Test(arguments: resolved)
    fileprivate func `a service is where botocore finds it`(wanted: Resolved) throws {
        let service = try #require(Service(rawValue: wanted.service))
        let endpoint = Endpoint(
            service, region: wanted.region, usesFIPS: wanted.fips,
            usesDualStack: wanted.dualStack)
        #expect(endpoint.host == wanted.host)
        #expect(endpoint.url == "https://\(wanted.host)/")
    }

    @Test func `the scheme's own port is not written`() throws {
        #expect(try Endpoint(url: "https://a.example:443/").authority == "a.example")
        #expect(try Endpoint(url: "http://a.example:80").authority == "a.example")
        #expect(try Endpoint(url: "http://a.example:443").authority == "a.example:443")
        #expect(try Endpoint(url: "http://[::1]:5000/").url == "http://[::1]:5000/")
    }

    @Test(arguments: [
        "", "a.example", "ftp://a.example", "https://", "https://u@a.example", "https://a/b",
        "https://a?b", "https://a:0", "https://a:99999", "https://a b", "https://[a]",
        "https://a:b",
    ])
    func `what is no endpoint is refused`(url: String) {
        #expect(throws: Endpoint.Malformed.self) { try Endpoint(url: url) }
    }
}
