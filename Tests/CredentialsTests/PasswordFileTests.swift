// What a password file may contain.

import Credentials
import Glibc
import Identity
import Testing

@Suite struct PasswordFileTests {
    private let directory = TemporaryDirectory()

    private func read(_ bytes: [UInt8]) throws(PasswordFile.Unusable) -> [UInt8] {
        directory.write(bytes, to: "password")
        return try PasswordFile.read(directory("password")).secret.withBytes { Array($0) }
    }

    private func reason(_ bytes: [UInt8]) -> String {
        do throws(PasswordFile.Unusable) {
            return "accepted: \(try read(bytes))"
        } catch {
            return error.reason
        }
    }

    @Test func `the content is the password`() throws {
        #expect(try read(Array("open sesame".utf8)) == Array("open sesame".utf8))
        #expect(try read(Array(" \u{e9}\t ".utf8)) == Array(" \u{e9}\t ".utf8))
        #expect(try read([0xff, 0x01]) == [0xff, 0x01])
    }

    @Test func `one newline at the end is not part of it`() throws {
        #expect(try read(Array("secret\n".utf8)) == Array("secret".utf8))
        #expect(try read(Array("secret\r\n".utf8)) == Array("secret".utf8))
    }

    @Test(arguments: ["two\nlines", "two\r\nlines\n", "blank\n\n", "carriage\r", "nul\0", "\0"])
    func `a line break or NUL inside is refused`(text: String) {
        #expect(reason(Array(text.utf8)).contains("line break or NUL inside the password"))
    }

    @Test(arguments: ["", "\n", "\r\n"])
    func `an empty file is refused`(text: String) {
        #expect(reason(Array(text.utf8)).contains("is empty: write the password into it"))
    }

    @Test func `64 KiB are accepted and one byte more is not`() throws {
        let longest = [UInt8](repeating: 0x61, count: PasswordFile.sizeLimit)
        #expect(try read(longest).count == 65_536)
        #expect(reason(longest + [0x61]).contains("larger than 65536 bytes"))
    }

    @Test func `a reason says what failed and never what was in the file`() {
        for bytes in [Array("hunter2\nhunter2".utf8), Array("hunter2\0".utf8)] {
            #expect(!reason(bytes).contains("hunter2"))
            #expect(reason(bytes).contains(directory("password")))
        }
    }

    @Test func `what is not a regular file is refused at once`() {
        precondition(mkfifo(directory("fifo"), 0o600) == 0)
        for path in [directory("fifo"), directory.path, "/dev/zero"] {
            #expect {
                try PasswordFile.read(path)
            } throws: {
                ($0 as? PasswordFile.Unusable)?.reason.contains("is not a regular file") == true
            }
        }
    }

    @Test func `a file that is not there names the remedy`() {
        #expect {
            try PasswordFile.read("/nonexistent/password")
        } throws: {
            ($0 as? PasswordFile.Unusable)?.reason
                == "cannot open /nonexistent/password: No such file or directory:"
                + " create it, or correct the path"
        }
    }
}
