// The requests the proxy sends of its own accord, such as HELLO. Not for secrets: arrays are copied
// as they grow, and the copies are not zeroed.

/// Writes multibulk requests.
package enum RequestEncoder {
    /// Appends one request with these arguments to `buffer`.
    package static func append(_ arguments: [[UInt8]], to buffer: inout [UInt8]) {
        appendHeader(0x2A, arguments.count, to: &buffer)
        for argument in arguments {
            appendHeader(0x24, argument.count, to: &buffer)
            buffer += argument
            buffer += "\r\n".utf8
        }
    }

    /// Appends one request with the UTF-8 of these arguments to `buffer`.
    package static func append(_ arguments: [String], to buffer: inout [UInt8]) {
        append(arguments.map { Array($0.utf8) }, to: &buffer)
    }

    /// Appends `*n CR LF` or `$n CR LF`, for a caller who writes what follows itself.
    package static func appendHeader(_ type: UInt8, _ number: Int, to buffer: inout [UInt8]) {
        buffer.append(type)
        buffer += String(number).utf8
        buffer += "\r\n".utf8
    }
}
