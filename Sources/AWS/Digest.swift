// SHA-256 and HMAC-SHA-256 by OpenSSL, and their text in hexadecimal digits.

import COpenSSL
import Identity

/// The 32 bytes of a SHA-256.
struct Digest {
    private(set) var bytes: [UInt8]

    init(of data: UnsafeRawBufferPointer) {
        bytes = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
        let input = data.bindMemory(to: UInt8.self)
        // OpenSSL takes a null pointer for no data only together with a length of 0.
        _ = SHA256(input.baseAddress, input.count, &bytes)
    }

    init(of text: String) {
        var text = text
        self = text.withUTF8 { Digest(of: UnsafeRawBufferPointer($0)) }
    }

    fileprivate init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// 64 lower-case digits.
    var hex: String {
        String(
            decoding: bytes.flatMap { [hexDigit($0 >> 4), hexDigit($0 & 15)] }, as: UTF8.self)
    }
}

/// HMAC-SHA-256 whose result is a key itself, and so a secret.
func authenticationCode(key: Secret, _ data: String) -> Secret {
    var code = authenticate(key: key, data)
    defer { wipe(&code) }
    return Secret(code)
}

/// HMAC-SHA-256 whose result is sent.
func signature(key: Secret, _ data: String) -> Digest {
    Digest(bytes: authenticate(key: key, data))
}

private func authenticate(key: Secret, _ data: String) -> [UInt8] {
    var code = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
    var length: UInt32 = 0
    var data = data
    data.withUTF8 { data in
        key.withBytes { key in
            _ = HMAC(
                EVP_sha256(), key.baseAddress, Int32(key.count), data.baseAddress, data.count,
                &code, &length)
        }
    }
    return code
}

/// Overwrites an array that nobody else holds.
func wipe(_ bytes: inout [UInt8]) {
    bytes.withUnsafeMutableBytes { buffer in
        if let base = buffer.baseAddress { OPENSSL_cleanse(base, buffer.count) }
    }
}
