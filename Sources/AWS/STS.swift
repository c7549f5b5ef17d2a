// AssumeRole and AssumeRoleWithWebIdentity, STS's two operations that give credentials.

import Identity

/// A role to assume.
struct RoleRequest {
    var arn: String
    var sessionName: String?
    var externalID: String?
    var durationSeconds: Int?

    static let defaultSessionName = "redis-auth-proxy"

    /// Checks what STS would refuse.
    ///
    /// Source: the model of STS, RoleSessionName.
    func checkedSessionName() throws(AWSFailure) -> String {
        let name = sessionName ?? Self.defaultSessionName
        let isName =
            (2...64).contains(name.utf8.count)
            && name.utf8.allSatisfy { byte in
                switch byte {
                case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
                default: "_+=,.@-".utf8.contains(byte)
                }
            }
        guard isName else {
            throw AWSFailure(
                .refused,
                "role_session_name: wanted 2 to 64 letters, digits and _+=,.@-, got \"\(name)\"")
        }
        return name
    }
}

extension AWSClient {
    /// A role's credential for whoever `credential` is.
    func assumeRole(_ role: RoleRequest, as credential: AWSCredential, region: String?)
        throws(AWSFailure) -> AWSCredential
    {
        var parameters: [(String, Secret)] = [
            ("Action", Secret("AssumeRole".utf8)), ("Version", Secret("2011-06-15".utf8)),
            ("RoleArn", Secret(role.arn.utf8)),
            ("RoleSessionName", Secret(try role.checkedSessionName().utf8)),
        ]
        if let externalID = role.externalID {
            parameters.append(("ExternalId", Secret(externalID.utf8)))
        }
        if let seconds = role.durationSeconds {
            parameters.append(("DurationSeconds", Secret("\(seconds)".utf8)))
        }
        return try sts(
            "AssumeRole", parameters, role: role.arn, credential: credential, region: region,
            source: "role \(role.arn), assumed with \(credential.source)")
    }

    /// A role's credential for the bearer of a token; the request is not signed.
    func assumeRole(_ role: RoleRequest, webIdentity token: Secret, region: String?, source: String)
        throws(AWSFailure) -> AWSCredential
    {
        let parameters: [(String, Secret)] = [
            ("Action", Secret("AssumeRoleWithWebIdentity".utf8)),
            ("Version", Secret("2011-06-15".utf8)), ("RoleArn", Secret(role.arn.utf8)),
            ("RoleSessionName", Secret(try role.checkedSessionName().utf8)),
            ("WebIdentityToken", token),
        ]
        return try sts(
            "AssumeRoleWithWebIdentity", parameters, role: role.arn, credential: nil,
            region: region, source: source)
    }

    private func sts(
        _ name: String, _ parameters: [(String, Secret)], role: String,
        credential: AWSCredential?, region: String?, source: String
    ) throws(AWSFailure) -> AWSCredential {
        let what = "\(name) of \(role)"
        let answer = try query(
            .sts, what, parameters, region: region ?? "us-east-1", credential: credential,
            endpoint: region == nil ? globalSTS() : nil)
        guard let xml = answer, let key = xml.texts["AccessKeyId"],
            let secret = xml.texts["SecretAccessKey"], !key.isEmpty, !secret.isEmpty
        else {
            throw AWSFailure(
                .refused, "\(what): wanted XML with a credential, got something else")
        }
        return AWSCredential(
            accessKeyID: key, secretAccessKey: Secret(secret.utf8),
            sessionToken: xml.texts["SessionToken"].map { Secret($0.utf8) },
            expiry: xml.texts["Expiration"].flatMap { WallTime(iso8601: $0) }, source: source)
    }

    /// Without a region STS has one endpoint for all, unless another one was configured.
    private func globalSTS() throws(AWSFailure) -> Endpoint? {
        let regional = try settings.endpoint(.sts, region: "us-east-1")
        let isConfigured = regional.host.hasSuffix(".amazonaws.com") == false
        return isConfigured ? nil : Endpoint(host: "sts.amazonaws.com")
    }
}
