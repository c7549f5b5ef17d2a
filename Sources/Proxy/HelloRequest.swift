// HELLO [version [AUTH user password] [SETNAME name]], read in the server's order.
//
// Source: redis 7.0, networking.c, helloCommand.

import Identity
import RESP

/// What a client's HELLO asks for.
struct HelloRequest {
    /// What is made of a login.
    enum Logins {
        /// A server whose default user has no password.
        case none
        /// Taken, whatever it is.
        case any
        /// Given to whoever verifies it.
        case verified
    }

    /// What the client says it is, where logins are verified.
    private(set) var login: (name: [UInt8], secret: Secret)?
    /// nil: HELLO without arguments, which switches nothing.
    private(set) var version: UInt8?
    private(set) var name: [UInt8]?
    /// What the server would answer instead of doing it.
    private(set) var error: [UInt8]?

    /// - Parameter request: a complete multibulk request.
    init(_ request: UnsafeRawBufferPointer, logins: Logins) {
        var arguments = RequestArguments(request)
        _ = arguments.next()
        guard let versionText = arguments.next() else { return }
        guard let number = integer(versionText) else {
            error = ClientError.protocolVersionNotInteger.reply
            return
        }
        guard number == 2 || number == 3 else {
            error = ClientError.protocolVersion.reply
            return
        }
        version = UInt8(number)
        while let option = arguments.next() {
            let rest = arguments
            if option.equalsIgnoringCase("AUTH"), let user = arguments.next(),
                let password = arguments.next()
            {
                switch logins {
                case .verified: login = (Array(user), Secret(copying: password))
                case .any: break
                case .none:
                    guard user.elementsEqual("default".utf8) else {
                        error = ClientError.wrongPassword.reply
                        return
                    }
                }
            } else if option.equalsIgnoringCase("SETNAME") {
                arguments = rest
                guard let wanted = arguments.next() else {
                    error = ClientError.unknownHelloOption(option)
                    return
                }
                guard isValidName(wanted) else {
                    error = ClientError.clientName.reply
                    return
                }
                name = Array(wanted)
            } else {
                error = ClientError.unknownHelloOption(option)
                return
            }
        }
    }

    /// The same without the password.
    func withoutLogin() -> HelloRequest {
        var copy = self
        copy.login = nil
        return copy
    }

    /// The same request as it may go to the server: without the login.
    func requestWithoutLogin() -> [UInt8] {
        var arguments: [[UInt8]] = [Array("HELLO".utf8)]
        if let version { arguments.append(Array(String(version).utf8)) }
        if let name { arguments += [Array("SETNAME".utf8), name] }
        var request: [UInt8] = []
        RequestEncoder.append(arguments, to: &request)
        return request
    }
}

/// An integer as the server reads one: no plus sign, no leading zero.
func integer(_ text: UnsafeRawBufferPointer) -> Int? {
    let digits = text.first == UInt8(ascii: "-") ? text.dropFirst() : text[...]
    guard digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
        digits.count == 1 || digits.first != UInt8(ascii: "0")
    else { return nil }
    return Int(String(decoding: text, as: UTF8.self))
}

/// Whether the server takes this for a client's or a library's name: `!` to `~`, nothing else.
///
/// Source: redis 7.0, networking.c, validateClientName.
func isValidName(_ name: UnsafeRawBufferPointer) -> Bool {
    name.allSatisfy { $0 >= 0x21 && $0 <= 0x7e }
}
