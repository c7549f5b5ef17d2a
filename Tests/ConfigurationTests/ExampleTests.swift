// The configurations in config/ are read by people before the manual is: they must be true.

import Configuration
import Glibc
import Testing

@Suite struct ExampleTests {
    private func example(_ name: String) throws -> String { try text("config/\(name)") }

    /// The text of a file of this project, found from this file's own place.
    private func text(_ name: String) throws -> String {
        let here = "\(#filePath)"
        let root = here.split(separator: "/", omittingEmptySubsequences: false).dropLast(3)
        let path = root.joined(separator: "/") + "/\(name)"
        let file = try #require(fopen(path, "r"), "\(path)")
        defer { fclose(file) }
        var bytes: [UInt8] = []
        while case let byte = fgetc(file), byte != EOF { bytes.append(UInt8(byte)) }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test func `the minimal configuration is valid and has no optional key`() throws {
        let text = try example("minimal.yaml")
        #expect(try load(text).warnings == [])
        #expect(try load(text).settings.threads == Settings().threads)
    }

    @Test func `the full configuration is valid`() throws {
        #expect(problems(try example("full.yaml")) == [])
    }

    @Test func `the full configuration stays valid with every default and example switched on`()
        throws
    {
        let text = try example("full.yaml")
            .replacing(#/(?m)^( *)# ([a-z_]+: \S+)$/#) { "\($0.output.1)\($0.output.2)" }
        #expect(text.contains("\nthreads: 1\n"))
        #expect(text.contains("\n      ca_file: "))
        #expect(problems(text) == [])
        // Without the examples, what was switched on changes nothing.
        var settings = try load(text).settings
        let defaults = try load(try example("full.yaml")).settings
        settings.handoverSocket = nil
        settings.upstreams[0].tls = defaults.upstreams[0].tls
        settings.users[0].userName = defaults.users[0].userName
        settings.admin = defaults.admin
        settings.handoverSocket = nil
        settings.listeners[1].socketOwner = nil
        settings.listeners[1].socketGroup = nil
        settings.listeners[0].identities[2] = defaults.listeners[0].identities[2]
        #expect(settings == defaults)
    }

    @Test func `every key of the table is in the full configuration, with its default`() throws {
        let text = try example("full.yaml")
        for row in Settings.documentation {
            let isThere: Bool
            if let fallback = row.defaultText, row.name != "tls" {
                // In a comment, and as the table has it.
                isThere =
                    text.contains("# \(row.name): \(fallback)\n")
                    || text.contains("# \(row.name): \"\(fallback)\"\n")
            } else {
                isThere = text.contains("\(row.name):")
            }
            #expect(isThere, "\(row.key)")
        }
    }

    @Test func `the manual has the table as it is`() throws {
        let manual = try text("Sources/RedisAuthProxy/Documentation.docc/Configuration.md")
        #expect(manual.hasSuffix("## Keys\n\n" + Settings.documentationTable))
    }

    @Test func `the README's example is the minimal configuration`() throws {
        let minimal = try example("minimal.yaml").split(separator: "\n").dropFirst()
        let readme = try text("README.md")
        #expect(readme.contains("```yaml\n" + minimal.joined(separator: "\n") + "\n```"))
    }

    @Test func `the table covers every section`() {
        let keys = Settings.documentation.map(\.key)
        for key in [
            "threads", "log.level", "upstreams.NAME.address", "upstreams.NAME.tls.ca_file",
            "users.NAME.user_name", "users.NAME.credentials.password_file", "listeners[].mode",
            "listeners[].identities[].any", "listeners[].identities[].login.password_scrypt",
        ] {
            #expect(keys.contains(key))
        }
        #expect(Set(keys).count == keys.count)
        #expect(Settings.documentation.allSatisfy { $0.sentence.hasSuffix(".") })
    }
}
