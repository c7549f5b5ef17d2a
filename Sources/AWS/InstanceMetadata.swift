// An EC2 instance's own service: credentials of its role, and its region. Version 2 only.
//
//   PUT /latest/api/token ─► a session token, which every GET carries
//   GET …/security-credentials-extended/ ─► the role's name   404: …/security-credentials/
//   GET …/NAME ─► the credential
//
// Source: EC2 User Guide, "Use IMDS"; AWS SDKs and Tools Reference Guide, "IMDS credential
// provider".

import Identity

struct InstanceMetadata {
    let endpoint: String

    /// nil: switched off by AWS_EC2_METADATA_DISABLED.
    ///
    /// - Throws: `refused` for an endpoint or mode that is none.
    init?(_ settings: AWSSettings) throws(AWSFailure) {
        guard !settings.environment.isTrue("AWS_EC2_METADATA_DISABLED") else { return nil }
        if let url = settings.value(
            "AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint")
        {
            do throws(Endpoint.Malformed) {
                endpoint = try Endpoint(url: url).url
            } catch {
                throw AWSFailure(
                    .refused,
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT: wanted a URL such as"
                        + " http://169.254.169.254, got \"\(url)\": \(error.advice)")
            }
            return
        }
        let mode = settings.value(
            "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ec2_metadata_service_endpoint_mode")
        switch mode?.lowercased() {
        case nil, "ipv4": endpoint = "http://169.254.169.254/"
        case "ipv6": endpoint = "http://[fd00:ec2::254]/"
        default:
            throw AWSFailure(
                .refused,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE: wanted IPv4 or IPv6, got"
                    + " \"\(mode ?? "")\"")
        }
    }

    /// The instance role's credential; three attempts.
    func credential(_ http: HTTPClient) throws(AWSFailure) -> AWSCredential {
        try attempts(http) { (token) throws(AWSFailure) in
            let extended = "latest/meta-data/iam/security-credentials-extended/"
            let legacy = "latest/meta-data/iam/security-credentials/"
            for base in [extended, legacy] {
                guard let role = try get(base, token, http), !role.isBlank else { continue }
                let name =
                    role.withBytes { String(decoding: $0, as: UTF8.self) }
                    .split(separator: "\n").first.map { $0.trimmed() } ?? ""
                guard let body = try get(base + name, token, http) else { continue }
                return try read(body, role: name)
            }
            throw AWSFailure(
                .refused,
                "instance metadata at \(endpoint): wanted a role's credential, but the instance"
                    + " has no role: attach an instance profile")
        }
    }

    /// The region that the instance is in.
    func region(_ http: HTTPClient) throws(AWSFailure) -> String {
        try attempts(http) { (token) throws(AWSFailure) in
            let body = try get("latest/meta-data/placement/region", token, http)
            let name =
                body?.withBytes { String(decoding: $0, as: UTF8.self) }.trimmed() ?? ""
            guard AWSNames.isRegion(name) else {
                throw AWSFailure(
                    .refused, "instance metadata at \(endpoint): wanted a region, got none")
            }
            return name
        }
    }

    private func read(_ body: Secret, role: String) throws(AWSFailure) -> AWSCredential {
        let place = "instance metadata, role \(role)"
        let answer = JSONObject(body)
        // An error comes with the status of a success.
        if let code = answer?.text("Code"), code != "Success" {
            let message = answer?.text("Message").map { ": \($0)" } ?? ""
            throw AWSFailure(.refused, "\(place): \(code)\(message)", code: code)
        }
        return try AWSCredential(
            answer, tokenKey: "Token", source: place, isStaticallyStable: true)
    }

    /// Each attempt with a session token of its own: a GET that is answered 401 had an old one.
    private func attempts<Result>(
        _ http: HTTPClient, _ body: (Secret) throws(AWSFailure) -> Result
    ) throws(AWSFailure) -> Result {
        var last = AWSFailure(.unavailable, "not asked")
        for attempt in 0..<3 {
            if attempt > 0 { try http.cancellation.wait(for: .milliseconds(100 << attempt)) }
            do throws(AWSFailure) {
                return try body(try sessionToken(http))
            } catch {
                if error.kind == .cancelled || error.kind == .refused { throw error }
                last = error
            }
        }
        throw last
    }

    private func sessionToken(_ http: HTTPClient) throws(AWSFailure) -> Secret {
        var request = request(.put, "latest/api/token")
        request.headers = [HTTPHeader("x-aws-ec2-metadata-token-ttl-seconds", "21600")]
        let response: HTTPResponse
        do throws(AWSFailure) {
            response = try http.send(request)
        } catch {
            guard error.kind == .unavailable else { throw error }
            throw AWSFailure(
                .unavailable,
                "instance metadata: \(error.reason); in a container the instance's hop limit must"
                    + " be 2 or more")
        }
        guard response.status == 200, !response.body.isBlank else {
            throw AWSFailure(
                response.status == 403 ? .refused : .unavailable,
                "instance metadata at \(endpoint): wanted a session token, got HTTP"
                    + " \(response.status)")
        }
        return response.body
    }

    /// nil: there is nothing at that path.
    private func get(_ path: String, _ token: Secret, _ http: HTTPClient) throws(AWSFailure)
        -> Secret?
    {
        var request = request(.get, path)
        request.headers = [HTTPHeader("x-aws-ec2-metadata-token", token)]
        let response = try http.send(request)
        switch response.status {
        case 200: return response.body
        case 404: return nil
        case let status where status >= 500 && path.contains("-extended"):
            // A service that does not know the path may fail in other ways than 404.
            return nil
        case let status:
            throw AWSFailure(
                .unavailable, "instance metadata at \(endpoint): HTTP \(status) for /\(path)")
        }
    }

    private func request(_ method: HTTPRequest.Method, _ path: String) -> HTTPRequest {
        var request = HTTPRequest(method, endpoint + path)
        request.connectTimeout = .seconds(1)
        request.timeout = .seconds(2)
        request.usesProxy = false
        return request
    }
}
