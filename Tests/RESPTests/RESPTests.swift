import RESP
import Testing

@Test("a whole small request is framed and classified") func smoke() {
    let bytes = Array("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nauth\r\n".utf8)
    bytes.withUnsafeBytes { raw in
        guard let base = raw.baseAddress else { return }
        var framer = RequestFramer()
        #expect(framer.next(base, count: 33) == .frame(length: 20, command: .plain))
        #expect(framer.next(base + 20, count: 13) == .incomplete)
        #expect(framer.command == .auth)
        #expect(framer.next(base + 20, count: 14) == .frame(length: 14, command: .auth))
    }
}
