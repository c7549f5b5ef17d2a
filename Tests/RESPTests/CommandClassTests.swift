import RESP
import Testing

@Suite struct CommandClassTests {
    private func recognise(_ name: [UInt8]) -> CommandClass {
        name.withUnsafeBytes {
            CommandClass.recognise($0.baseAddress ?? .init(bitPattern: 1)!, count: $0.count)
        }
    }

    @Test(arguments: RequestReference.names.keys.sorted { $0.rawValue < $1.rawValue })
    func `Every name of a class is recognised in any case`(_ command: CommandClass) {
        for name in RequestReference.names[command] ?? [] {
            let upper = Array(name.utf8)
            for pattern in 0..<(1 << upper.count) {
                let mixed = upper.enumerated().map { index, byte in
                    pattern >> index & 1 == 1 ? byte | 0x20 : byte
                }
                #expect(recognise(mixed) == command, "\(String(decoding: mixed, as: UTF8.self))")
            }
        }
    }

    @Test func `Every class but plain and none has a name`() {
        #expect(
            Set(RequestReference.names.keys)
                == Set(CommandClass.allCases).subtracting([.plain, .none]))
    }

    @Test func `A name with any other byte in any place is plain`() {
        let names = Set(RequestReference.names.values.joined().map { Array($0.utf8) })
        for name in names {
            for index in name.indices {
                for byte in UInt8(1)...255 {
                    var near = name
                    near[index] = byte
                    let upper = near.map { (0x61...0x7A).contains($0) ? $0 & 0xDF : $0 }
                    if !names.contains(upper) {
                        #expect(recognise(near) == .plain, "\(near)")
                    }
                }
            }
        }
    }

    @Test func `A name that is shorter or longer by a byte is plain`() {
        let names = Set(RequestReference.names.values.joined().map { Array($0.utf8) })
        for name in names {
            for near in [Array(name.dropLast()), Array(name.dropFirst())]
            where !names.contains(near) {
                #expect(recognise(near) == .plain, "\(near)")
            }
            for byte in UInt8(1)...255 {
                for near in [name + [byte], [byte] + name] {
                    let upper = near.map { (0x61...0x7A).contains($0) ? $0 & 0xDF : $0 }
                    if !names.contains(upper) {
                        #expect(recognise(near) == .plain, "\(near)")
                    }
                }
            }
        }
    }

    @Test func `A name that a NUL byte cuts off has the class of what stands before it`() {
        for (command, names) in RequestReference.names {
            for name in names {
                #expect(recognise(Array(name.utf8) + [0]) == command)
                #expect(
                    recognise(Array(name.lowercased().utf8) + [0] + Array("and more".utf8))
                        == command)
            }
        }
        #expect(recognise(Array("GET\0MULTI".utf8)) == .plain)
        #expect(recognise(Array("\0MULTI".utf8)) == .plain)
    }

    @Test func `No more than the bytes of a name are read`() {
        let memory = FencedMemory(capacity: 64)
        for (command, names) in RequestReference.names {
            for name in names {
                for atFront in [true, false] {
                    let pointer = memory.place(Array(name.utf8)[...], atFront: atFront)
                    #expect(CommandClass.recognise(pointer, count: name.utf8.count) == command)
                }
            }
        }
        for length in 0...40 {
            let pointer = memory.place(Array(repeating: 0x41, count: length)[...], atFront: false)
            #expect(CommandClass.recognise(pointer, count: length) == .plain)
        }
    }
}
