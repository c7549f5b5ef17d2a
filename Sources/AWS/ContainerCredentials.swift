// Credentials of a container: ECS's agent and EKS Pod Identity's.
//
//   AWS_CONTAINER_CREDENTIALS_RELATIVE_URI   at http://169.254.170.2
//   AWS_CONTAINER_CREDENTIALS_FULL_URI       https, or plain http to this machine and the addresses
//                                            of ECS's and EKS's agents; no other name or address
//
// The value of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, read anew each time because Kubernetes
// replaces it, goes into Authorization. A host that is not allowed is refused before anything is
// sent: the answer would be a credential and the request has a token in it.
//
// Source: AWS SDKs and Tools Reference Guide, "Container credential provider"; botocore 1.43,
// utils.ContainerMetadataFetcher, which accepts only the literal name localhost.

import Identity

/// Where a container's credential is to be asked for.
package struct ContainerCredentials {
    let url: String
    let environment: AWSEnvironment

    /// nil: not in a container that has them.
    init?(_ environment: AWSEnvironment) throws(AWSFailure) {
        self.environment = environment
        if let path = environment["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] {
            guard path.hasPrefix("/"), !path.contains(where: { $0.isWhitespace }) else {
                throw AWSFailure(
                    .refused,
                    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: wanted a path, got \"\(path)\"")
            }
            url = "http://169.254.170.2" + path
        } else if let full = environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
            url = full
            try Self.check(full)
        } else {
            return nil
        }
    }

    /// Throws for a URL that a credential must not be asked from.
    package static func check(_ url: String) throws(AWSFailure) {
        let lowered = url.lowercased()
        let wanted =
            "AWS_CONTAINER_CREDENTIALS_FULL_URI: wanted an https URL, or http to localhost, a"
            + " loopback address, 169.254.170.2, 169.254.170.23 or fd00:ec2::23"
        // The authority ends at the first of these; a user part or a backslash is a disguise.
        let afterScheme =
            lowered.hasPrefix("https://")
            ? lowered.dropFirst(8) : lowered.hasPrefix("http://") ? lowered.dropFirst(7) : ""
        let authority = afterScheme.prefix { !"/?#".contains($0) }
        let isPlain = lowered.unicodeScalars.allSatisfy {
            $0.value > 0x20 && $0.value < 0x7f && $0 != "\\"
        }
        guard isPlain, !authority.contains("@"),
            let endpoint = try? Endpoint(
                url: (lowered.hasPrefix("https://") ? "https://" : "http://") + authority)
        else { throw AWSFailure(.refused, "\(wanted), got \"\(oneLine(url, limit: 200))\"") }
        guard endpoint.isTLS || isAllowed(endpoint.host) else {
            throw AWSFailure(.refused, "\(wanted), got http to \"\(endpoint.host)\"")
        }
    }

    private static func isAllowed(_ host: String) -> Bool {
        if ["localhost", "169.254.170.2", "169.254.170.23", "fd00:ec2::23", "::1"].contains(host) {
            return true
        }
        // 127.0.0.0/8 in full: shorter spellings of addresses mean different things to different
        // programs.
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127"
            && parts.allSatisfy { part in
                part.utf8.allSatisfy { (0x30...0x39).contains($0) } && part.count <= 3
                    && (part == "0" || part.first != "0") && UInt8(part) != nil
            }
    }

    /// Asks, three times if need be, a second apart.
    func credential(_ http: HTTPClient) throws(AWSFailure) -> AWSCredential {
        var last = AWSFailure(.unavailable, "not asked")
        for attempt in 0..<3 {
            if attempt > 0 { try http.cancellation.wait(for: .seconds(1)) }
            do throws(AWSFailure) {
                return try ask(http)
            } catch {
                if error.kind == .cancelled || error.kind == .refused { throw error }
                last = error
            }
        }
        throw last
    }

    private func ask(_ http: HTTPClient) throws(AWSFailure) -> AWSCredential {
        var request = HTTPRequest(.get, url, headers: [HTTPHeader("Accept", "application/json")])
        request.connectTimeout = .seconds(2)
        request.timeout = .seconds(2)
        request.usesProxy = false
        if let token = try authorization() {
            request.headers.append(HTTPHeader("Authorization", token))
        }
        let place = "container credentials at \(HTTPClient.place(request))"
        let response = try http.send(request)
        guard response.status == 200 else {
            throw AWSFailure(
                .unavailable, "\(place): wanted a credential, got HTTP \(response.status)")
        }
        return try AWSCredential(JSONObject(response.body), tokenKey: "Token", source: place)
    }

    /// Verbatim but for one line break at its end, which editors and `echo` add.
    private func authorization() throws(AWSFailure) -> Secret? {
        let name = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
        guard let path = environment[name] else {
            return environment.secret("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        }
        guard let token = try contents(of: path, limit: 64 * 1024), !token.isBlank else {
            throw AWSFailure(
                .unavailable, "\(name): wanted a token in \(path), got no file or an empty one")
        }
        return token.withoutFinalLineBreak()
    }
}

extension Secret {
    /// Without one `\n` or `\r\n` at the end.
    func withoutFinalLineBreak() -> Secret {
        withBytes { bytes in
            var rest = bytes[...]
            if rest.last == 0x0a { rest = rest.dropLast() }
            if rest.last == 0x0d { rest = rest.dropLast() }
            return Secret(copying: UnsafeRawBufferPointer(rebasing: rest))
        }
    }
}
