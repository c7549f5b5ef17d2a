// Reading the file itself.

import Configuration
import Glibc
import Testing

@Suite struct FileTests {
    private func diagnostics(_ path: String) -> [String] {
        do throws(InvalidConfiguration) {
            _ = try Settings.load(file: path)
            return []
        } catch {
            return error.diagnostics.map(\.description)
        }
    }

    @Test func `a file that is not there says so`() {
        #expect(
            diagnostics("/nonexistent/c.yaml") == [
                "/nonexistent/c.yaml: error: cannot be read: No such file or directory"
            ])
    }

    @Test func `a directory is no file`() {
        #expect(diagnostics("/tmp") == ["/tmp: error: cannot be read: Is a directory"])
    }

    @Test func `a file without end is not read to its end`() {
        #expect(diagnostics("/dev/zero").count == 1)
    }
}
