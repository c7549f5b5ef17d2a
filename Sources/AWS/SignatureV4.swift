// Signature Version 4, in the two forms that are needed here.
//
//   canonical request ─SHA-256─► string to sign ─HMAC with the derived key─► signature
//
//   presigned    the signature is the last pair of the query; IAM tokens are such URLs
//   header       the signature is in Authorization; requests to AWS's services
//
// The session token is inside what is signed, in both forms. Whatever may contain it is built in
// buffers that wipe themselves. Path and query of the requests that we sign in headers are always
// `/` and empty, so that no rule of path normalisation is needed.
//
// Source: AWS, "Create a signed AWS API request" and "Authenticating Requests: Using Query
// Parameters"; checked against botocore by the golden vectors in Tests/Fixtures.

package import Identity

/// A signer: whose key, for which region and service.
package struct SignatureV4: Sendable {
    let credential: AWSCredential
    let region: String
    let service: String
    let keys: SigningKeys

    package init(
        credential: AWSCredential, region: String, service: String,
        keys: SigningKeys = SigningKeys()
    ) {
        self.credential = credential
        self.region = region
        self.service = service
        self.keys = keys
    }

    /// A signature and what it was computed from, which a test compares step by step.
    package struct Signed: Sendable {
        /// Contains the session token.
        package let canonicalRequest: Secret
        package let stringToSign: String
        package let signature: String
    }

    // MARK: Presigned

    /// A GET of `/` as a presigned URL without its scheme: `HOST/?Action=…&X-Amz-Signature=…`.
    ///
    /// - Parameters:
    ///   - host: the value of the Host header, and the URL's host.
    ///   - query: names and values as they are, not encoded.
    ///   - expires: for how long the URL is good, in seconds.
    package func presign(
        host: String, query: [(name: String, value: String)], expires: Int, at time: WallTime
    ) -> (url: Secret, signed: Signed) {
        let scope = CredentialScope(time, region: region, service: service)
        var pairs: [(name: String, value: QueryValue)] = query.map { ($0.name, .text($0.value)) }
        pairs += [
            ("X-Amz-Algorithm", .text("AWS4-HMAC-SHA256")),
            ("X-Amz-Credential", .text("\(credential.accessKeyID)/\(scope.text)")),
            ("X-Amz-Date", .text(time.amzDate)),
            ("X-Amz-Expires", .text("\(expires)")),
            ("X-Amz-SignedHeaders", .text("host")),
        ]
        if let token = credential.sessionToken {
            pairs.append(("X-Amz-Security-Token", .secret(token)))
        }
        // By bytes of the names: none occurs twice, and none needs encoding.
        pairs.sort { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }

        var canonicalQuery = WipedBuffer(capacity: 4096)
        for (index, pair) in pairs.enumerated() {
            if index > 0 { canonicalQuery.append("&") }
            canonicalQuery.appendEncoded(pair.name)
            canonicalQuery.append("=")
            switch pair.value {
            case .text(let text): canonicalQuery.appendEncoded(text)
            case .secret(let secret): canonicalQuery.appendEncoded(secret)
            }
        }
        var request = WipedBuffer(capacity: 4096)
        request.append("GET\n/\n")
        canonicalQuery.withBytes { request.append($0) }
        request.append("\nhost:\(host)\n\nhost\n")
        request.append(Digest(of: "").hex)
        let signed = sign(request, scope, at: time)

        var url = WipedBuffer(capacity: 4096)
        url.append(host)
        url.append("/?")
        canonicalQuery.withBytes { url.append($0) }
        url.append("&X-Amz-Signature=")
        url.append(signed.signature)
        return (url.secret(), signed)
    }

    private enum QueryValue {
        case text(String)
        case secret(Secret)
    }

    // MARK: In headers

    /// The headers that make a POST to `/` a signed one: those given, the date, the session token
    /// and Authorization; Host is signed too and left to whoever sends.
    ///
    /// - Parameters:
    ///   - authority: host and port as Host will have them, see `Endpoint.authority`.
    ///   - headers: each name once, in any case.
    package func authorize(
        authority: String, headers: [(name: String, value: String)], body: UnsafeRawBufferPointer,
        at time: WallTime
    ) -> (headers: [HTTPHeader], signed: Signed) {
        let scope = CredentialScope(time, region: region, service: service)
        var sent = headers.map { HTTPHeader($0.name, $0.value) }
        sent.append(HTTPHeader("X-Amz-Date", time.amzDate))
        if let token = credential.sessionToken {
            sent.append(HTTPHeader("X-Amz-Security-Token", token))
        }
        let canonical = (sent + [HTTPHeader("Host", authority)])
            .map { (name: $0.name.lowercased(), value: $0.value) }
            .sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        let names = canonical.map(\.name).joined(separator: ";")

        var request = WipedBuffer(capacity: 4096)
        request.append("POST\n/\n\n")
        for header in canonical {
            request.append(header.name)
            request.append(":")
            request.append(header.value)
            request.append("\n")
        }
        request.append("\n\(names)\n\(Digest(of: body).hex)")
        let signed = sign(request, scope, at: time)
        sent.append(
            HTTPHeader(
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=\(credential.accessKeyID)/\(scope.text),"
                    + " SignedHeaders=\(names), Signature=\(signed.signature)"))
        return (sent, signed)
    }

    private func sign(
        _ canonicalRequest: borrowing WipedBuffer, _ scope: CredentialScope, at time: WallTime
    ) -> Signed {
        let digest = canonicalRequest.withBytes { Digest(of: $0).hex }
        let stringToSign = "AWS4-HMAC-SHA256\n\(time.amzDate)\n\(scope.text)\n\(digest)"
        let key = keys.key(for: credential.secretAccessKey, scope)
        return Signed(
            canonicalRequest: canonicalRequest.secret(), stringToSign: stringToSign,
            signature: signature(key: key, stringToSign).hex)
    }
}

/// A header of a request. Its value is a Secret, whether or not it is secret.
package struct HTTPHeader: Sendable {
    package let name: String
    package let value: Secret

    package init(_ name: String, _ value: String) {
        self.name = name
        self.value = Secret(value.utf8)
    }

    package init(_ name: String, _ value: Secret) {
        self.name = name
        self.value = value
    }
}
