// OpenSSL's ways to fail, folded once into one closed enum with words for an operator.
//
// OpenSSL answers with a return code, SSL_get_error, a queue of errors per thread, the result of
// the certificate's verification, and sometimes only with an alert that the server sent. Nobody
// above this room sees any of those.

import COpenSSL
import Glibc

/// Why a certificate was refused.
package struct CertificateProblem: Equatable, Sendable {
    /// OpenSSL's X509_V_ERR_… (x509_vfy.h).
    package let code: Int32
    /// OpenSSL's words for the code, such as `hostname mismatch`.
    package let reason: String
    /// 0 for the server's own certificate, more for those above it.
    package let depth: Int32
    /// The refused certificate's subject, such as `O=Example, CN=cache.example`.
    package let subject: String
    /// Who signed it.
    package let issuer: String
    /// The DNS names and IP addresses that it is for.
    package let names: [String]
    /// When it ends, such as `Nov 21 06:03:12 2025 GMT`.
    package let notAfter: String

    /// Whether the certificate is for another host than was wanted.
    package var isWrongName: Bool {
        code == X509_V_ERR_HOSTNAME_MISMATCH || code == X509_V_ERR_IP_ADDRESS_MISMATCH
    }
}

/// A TLS connection that did not come about or broke. The connection can only be closed.
package final class TLSFailure: Error, Sendable {
    /// The kinds of failure.
    package enum Reason: Equatable, Sendable {
        /// The server's certificate was refused.
        case certificate(CertificateProblem)
        /// The two sides have no TLS version in common.
        case protocolVersion
        /// What the server sent is not TLS.
        case notTLS
        /// The server ended the connection with a fatal alert (RFC 8446, section 6), such as
        /// 42 `bad certificate` or 116 `certificate required`.
        case alert(number: Int32, text: String)
        /// The connection ended during the handshake, without an alert.
        case closedDuringHandshake
        /// The connection ended without close_notify: what came last may not be all.
        case truncated
        /// Anything else; the error queue says what.
        case broken
    }

    package let reason: Reason
    /// The host that was wanted.
    package let serverName: String
    /// OpenSSL's whole error queue, oldest first; often empty.
    package let errorQueue: [String]
    private let expectation: Expectation

    /// What the connection wanted, in words for the description.
    struct Expectation: Sendable {
        /// Where trust comes from: a file, or the system's store.
        var trust: String
        /// The lowest version, such as `TLS 1.2`.
        var minimumVersion: String
    }

    init(
        reason: Reason,
        serverName: String,
        expectation: Expectation,
        errorQueue: [String]
    ) {
        self.reason = reason
        self.serverName = serverName
        self.expectation = expectation
        self.errorQueue = errorQueue
    }
}

extension TLSFailure: CustomStringConvertible {
    /// What failed, what was wanted, what was got, and where there is one the remedy.
    package var description: String {
        switch reason {
        case .certificate(let problem): return describe(problem)
        case .protocolVersion:
            return "TLS with \(serverName): no protocol version in common; wanted "
                + "\(expectation.minimumVersion) or later" + queueText
        case .notTLS:
            return "TLS with \(serverName): the server's answer is not TLS; the port is one for "
                + "plaintext, or another service's" + queueText
        case .alert(let number, let text):
            return "TLS with \(serverName): the server refused with alert \(number), \(text)"
                + alertAdvice(number) + queueText
        case .closedDuringHandshake:
            return "TLS with \(serverName): the server closed the connection during the handshake; "
                + "it may want another port, name or client certificate, or none of TLS"
        case .truncated:
            return "TLS with \(serverName): the connection ended without close_notify"
        case .broken:
            return "TLS with \(serverName): protocol failure" + queueText
        }
    }

    private var queueText: String {
        errorQueue.isEmpty ? "" : " [\(errorQueue.joined(separator: "; "))]"
    }

    private func alertAdvice(_ number: Int32) -> String {
        switch number {
        case SSL_AD_HANDSHAKE_FAILURE:
            return "; it accepts none of our ciphers or wants a client certificate"
        case SSL_AD_BAD_CERTIFICATE, SSL_AD_UNSUPPORTED_CERTIFICATE, SSL_AD_CERTIFICATE_REVOKED,
            SSL_AD_CERTIFICATE_EXPIRED, SSL_AD_CERTIFICATE_UNKNOWN, SSL_AD_UNKNOWN_CA,
            SSL_AD_ACCESS_DENIED:
            return "; it does not accept our client certificate"
        case SSL_AD_CERTIFICATE_REQUIRED: return "; it wants a client certificate"
        case SSL_AD_UNRECOGNIZED_NAME: return "; it serves no host of that name"
        default: return ""
        }
    }

    private func describe(_ problem: CertificateProblem) -> String {
        let names =
            problem.names.isEmpty ? "no host" : problem.names.joined(separator: ", ")
        var text = "TLS with \(serverName): certificate refused: \(problem.reason)"
        if problem.isWrongName {
            text += "; wanted \(serverName), the certificate is for \(names)"
            text += " (subject \(problem.subject)); connect by one of its names or set the "
            text += "server name to one"
            return text
        }
        text += "; subject \(problem.subject), issuer \(problem.issuer), depth \(problem.depth)"
        switch problem.code {
        case X509_V_ERR_CERT_HAS_EXPIRED:
            text += ", valid until \(problem.notAfter); renew it, or set this machine's clock"
        case X509_V_ERR_CERT_NOT_YET_VALID: text += "; set this machine's clock"
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
            X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
            X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
            text += "; its authority is not in \(expectation.trust): give the file that holds it"
        default: break
        }
        return text
    }
}

extension TLSFailure {
    /// Folds the error queue of a failed call, and empties it.
    convenience init(
        folding problem: CertificateProblem?,
        serverName: String,
        expectation: Expectation,
        handshakeIsDone: Bool
    ) {
        let number = ERR_peek_error()
        let queue = OpenSSLErrors.drain()
        self.init(
            reason: Self.reason(
                number, problem: problem, handshakeIsDone: handshakeIsDone),
            serverName: serverName,
            expectation: expectation,
            errorQueue: queue
        )
    }

    private static func reason(
        _ number: UInt,
        problem: CertificateProblem?,
        handshakeIsDone: Bool
    ) -> Reason {
        guard ERR_GET_LIB(number) == ERR_LIB_SSL else { return .broken }
        let reason = ERR_GET_REASON(number)
        if reason == SSL_R_CERTIFICATE_VERIFY_FAILED, let problem { return .certificate(problem) }
        switch reason {
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_TLSV1_ALERT_PROTOCOL_VERSION,
            SSL_R_NO_PROTOCOLS_AVAILABLE, SSL_R_VERSION_TOO_LOW, SSL_R_VERSION_TOO_HIGH,
            SSL_R_UNKNOWN_PROTOCOL, SSL_R_WRONG_SSL_VERSION:
            return .protocolVersion
        case SSL_R_WRONG_VERSION_NUMBER, SSL_R_HTTP_REQUEST, SSL_R_PACKET_LENGTH_TOO_LONG,
            SSL_R_RECORD_TOO_SMALL:
            return handshakeIsDone ? .broken : .notTLS
        default: break
        }
        // Alerts arrive as reasons above SSL_AD_REASON_OFFSET (ssl.h).
        let alert = reason - SSL_AD_REASON_OFFSET
        if alert >= 0 && alert <= 255 {
            return .alert(number: alert, text: alertText(alert))
        }
        return .broken
    }

    private static func alertText(_ number: Int32) -> String {
        switch number {
        // OpenSSL 3.0 has no words for the alerts that came with TLS 1.3.
        case SSL_AD_MISSING_EXTENSION: return "missing extension"
        case SSL_AD_CERTIFICATE_REQUIRED: return "certificate required"
        default: return SSL_alert_desc_string_long(number).map { String(cString: $0) } ?? "unknown"
        }
    }
}

/// The calling thread's error queue.
enum OpenSSLErrors {
    /// Empties the queue before a call, so that what is in it afterwards is the call's own.
    @inline(__always)
    static func clear() {
        // ERR_clear_error visits every slot; on the hot path the queue is empty.
        if ERR_peek_error() != 0 { ERR_clear_error() }
    }

    /// Takes everything out, oldest first, such as `certificate verify failed (SSL routines)`.
    static func drain() -> [String] {
        var texts: [String] = []
        while true {
            var data: UnsafePointer<CChar>?
            var flags: Int32 = 0
            let number = ERR_get_error_all(nil, nil, nil, &data, &flags)
            if number == 0 { return texts }
            var text = Self.text(of: number)
            if let data, flags & ERR_TXT_STRING != 0, data.pointee != 0 {
                text += " (\(String(cString: data)))"
            }
            texts.append(text)
        }
    }

    private static func text(of number: UInt) -> String {
        // System errors carry errno and have no reason string (err.h, ERR_SYSTEM_FLAG).
        if number & (UInt(Int32.max) + 1) != 0 {
            let errno = Int32(truncatingIfNeeded: number & UInt(Int32.max))
            return SystemError(call: "", number: errno).reason
        }
        return ERR_reason_error_string(number).map { String(cString: $0) } ?? "error \(number)"
    }
}

extension CertificateProblem {
    /// What a verification under way has just found.
    init(_ store: OpaquePointer) {
        code = X509_STORE_CTX_get_error(store)
        reason =
            X509_verify_cert_error_string(Int(code)).map { String(cString: $0) } ?? "error \(code)"
        depth = X509_STORE_CTX_get_error_depth(store)
        guard let certificate = X509_STORE_CTX_get_current_cert(store) else {
            subject = "?"
            issuer = "?"
            names = []
            notAfter = "?"
            return
        }
        subject = Self.text { copenssl_print_name($0, X509_get_subject_name(certificate)) }
        issuer = Self.text { copenssl_print_name($0, X509_get_issuer_name(certificate)) }
        notAfter = Self.text { ASN1_TIME_print($0, X509_get0_notAfter(certificate)) }
        names = Self.names(of: certificate)
    }

    /// Names found and shown at most; a certificate comes from outside and may hold thousands.
    private static let nameLimit = 16

    static func names(of certificate: OpaquePointer) -> [String] {
        guard let list = X509_get_ext_d2i(certificate, NID_subject_alt_name, nil, nil) else {
            return []
        }
        let names = OpaquePointer(list)
        defer { GENERAL_NAMES_free(names) }
        var texts: [String] = []
        for index in 0..<max(0, copenssl_general_name_count(names)) {
            guard let name = copenssl_general_name(names, index),
                let value = copenssl_general_name_bytes(name)
            else { continue }
            let bytes = UnsafeRawBufferPointer(
                start: ASN1_STRING_get0_data(value), count: Int(ASN1_STRING_length(value)))
            if texts.count == nameLimit {
                texts.append("…")
                break
            }
            texts.append(
                name.pointee.type == GEN_DNS ? printable(bytes) : address(bytes))
        }
        return texts
    }

    private static func address(_ bytes: UnsafeRawBufferPointer) -> String {
        let family = bytes.count == 4 ? AF_INET : AF_INET6
        guard bytes.count == 4 || bytes.count == 16, let base = bytes.baseAddress else {
            return "?"
        }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(INET6_ADDRSTRLEN)) {
            let text = inet_ntop(family, base, $0.baseAddress, socklen_t($0.count))
            return text.map { String(cString: $0) } ?? "?"
        }
    }

    /// The server wrote these bytes and they end up in a log: no control characters.
    private static func printable(_ bytes: UnsafeRawBufferPointer) -> String {
        String(
            decoding: bytes.prefix(255).map { $0 > 0x20 && $0 < 0x7f ? $0 : UInt8(ascii: "?") },
            as: UTF8.self)
    }

    static func text(_ body: (OpaquePointer) -> Int32) -> String {
        guard let bio = BIO_new(BIO_s_mem()) else { return "?" }
        defer { BIO_free(bio) }
        guard body(bio) >= 0 else { return "?" }
        var bytes: UnsafeMutablePointer<CChar>?
        let count = copenssl_bio_memory(bio, &bytes)
        return String(
            decoding: UnsafeRawBufferPointer(start: bytes, count: max(0, count)), as: UTF8.self)
    }
}
