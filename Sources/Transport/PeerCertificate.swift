// A server's certificate as operators want to see it: for whom, by whom, until when.

import COpenSSL

/// The certificate that a server has shown and that was accepted.
package struct PeerCertificate: Equatable, Sendable {
    /// Such as `O=Example, CN=cache.example`.
    package let subject: String
    /// Who signed it.
    package let issuer: String
    /// The DNS names and IP addresses that it is for.
    package let names: [String]
    /// When it ends, such as `Nov 21 06:03:12 2025 GMT`.
    package let notAfter: String
    /// Whole days until then, from this machine's clock; negative when it is over.
    package let daysLeft: Int

    /// - Parameter certificate: an X509, borrowed.
    init(_ certificate: OpaquePointer) {
        subject = CertificateProblem.text {
            copenssl_print_name($0, X509_get_subject_name(certificate))
        }
        issuer = CertificateProblem.text {
            copenssl_print_name($0, X509_get_issuer_name(certificate))
        }
        names = CertificateProblem.names(of: certificate)
        let end = X509_get0_notAfter(certificate)
        notAfter = CertificateProblem.text { ASN1_TIME_print($0, end) }
        var days: Int32 = 0
        var seconds: Int32 = 0
        // A time of nil is now.
        daysLeft = ASN1_TIME_diff(&days, &seconds, nil, end) == 1 ? Int(days) : 0
    }
}
