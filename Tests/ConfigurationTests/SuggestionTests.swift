import Configuration
import Testing

@Suite struct SuggestionTests {
    private let known = ["threads", "listeners", "upstreams", "ca_file", "login_timeout"]

    @Test(arguments: [
        ("thread", "threads"), ("therads", "threads"), ("listners", "listeners"),
        ("ca-file", "ca_file"), ("CA_FILE", "ca_file"), ("loginTimeout", "login_timeout"),
        ("upsteams", "upstreams"),
    ])
    func `a near miss is recognised`(word: String, wanted: String) {
        #expect(suggestion(for: word, among: known) == wanted)
    }

    @Test(arguments: ["", "x", "password", "timeout", String(repeating: "a", count: 100_000)])
    func `something else is not forced onto a known word`(word: String) {
        #expect(suggestion(for: word, among: known) == nil)
    }
}
