// Credentials by IAM Identity Center (SSO): a person logged in with `aws sso login`, and the token
// that this left in ~/.aws/sso/cache gives credentials of a role, and renews itself for a while.
//
//   <sha1 of the session's name, or of the start URL>.json ─► accessToken ─► portal ─► credential
//                                     └ refreshToken ─► OIDC ─► a new token, written back
//
// Source: AWS SDKs and Tools Reference Guide, "IAM Identity Center credential provider"; botocore
// 1.43, credentials.SSOCredentialFetcher and tokens.SSOTokenProvider.

import COpenSSL
import FoundationEssentials
import Glibc
import Identity

struct SingleSignOn {
    /// How long before its end a token is renewed.
    static let renewal: Duration = .seconds(15 * 60)

    let sessionName: String?
    let startURL: String
    let region: String
    let accountID: String
    let roleName: String

    /// nil: the profile does not use it.
    init?(profile: SharedFiles.Section, named name: String, files: SharedFiles)
        throws(AWSFailure)
    {
        guard
            ["sso_session", "sso_start_url", "sso_account_id", "sso_role_name"].contains(
                where: { profile[$0] != nil })
        else { return nil }
        var missing: [String] = []
        func wanted(_ key: String, _ value: String?) -> String {
            if value == nil { missing.append(key) }
            return value ?? ""
        }
        sessionName = profile["sso_session"]
        accountID = wanted("sso_account_id", profile["sso_account_id"])
        roleName = wanted("sso_role_name", profile["sso_role_name"])
        if let sessionName {
            guard let session = files.ssoSessions[sessionName] else {
                throw AWSFailure(
                    .refused,
                    "profile \(name): wanted [sso-session \(sessionName)] in \(files.configPath),"
                        + " got none")
            }
            for key in ["sso_start_url", "sso_region"] {
                if let own = profile[key], let other = session[key], own != other {
                    throw AWSFailure(
                        .refused,
                        "profile \(name): wanted the same \(key) as in [sso-session"
                            + " \(sessionName)], got \"\(own)\" and \"\(other)\"")
                }
            }
            startURL = wanted("sso_start_url", session["sso_start_url"])
            region = wanted("sso_region", session["sso_region"])
        } else {
            startURL = wanted("sso_start_url", profile["sso_start_url"])
            region = wanted("sso_region", profile["sso_region"])
        }
        guard missing.isEmpty else {
            throw AWSFailure(
                .refused,
                "profile \(name): wanted \(missing.joined(separator: " and ")) for single sign-on,"
                    + " got none")
        }
    }

    /// What the cache keeps, as AWS's tools write it.
    private struct Token: Codable {
        var startUrl: String?
        var region: String?
        var accessToken: String
        var expiresAt: String
        var clientId: String?
        var clientSecret: String?
        var registrationExpiresAt: String?
        var refreshToken: String?
    }

    private struct Renewal: Encodable {
        let grantType = "refresh_token"
        let clientId: String
        let clientSecret: String
        let refreshToken: String
    }

    private struct Renewed: Decodable {
        let accessToken: String
        let expiresIn: Int64
        let refreshToken: String?
    }

    private struct Answer: Decodable {
        struct Role: Decodable {
            let accessKeyId: String
            let secretAccessKey: String
            let sessionToken: String?
            let expiration: Int64
        }
        let roleCredentials: Role
    }

    private var remedy: String { "run aws sso login" }

    func credential(_ client: AWSClient) throws(AWSFailure) -> AWSCredential {
        let token = try currentToken(client)
        let endpoint = try client.settings.endpoint(.sso, region: region)
        var query = WipedBuffer()
        query.append(endpoint.url)
        query.append("federation/credentials?role_name=")
        query.appendEncoded(roleName)
        query.append("&account_id=")
        query.appendEncoded(accountID)
        let url = query.withBytes { String(decoding: $0, as: UTF8.self) }
        let body = try client.retry { (_) throws(Retry.Attempt) in
            let response: HTTPResponse
            do throws(AWSFailure) {
                response = try client.http.send(
                    HTTPRequest(
                        .get, url,
                        headers: [HTTPHeader("x-amz-sso_bearer_token", token.accessToken)]))
            } catch {
                throw Retry.Attempt(error)
            }
            guard response.status == 200 else {
                let (code, message) = AWSClient.error(in: response)
                let what = [code, message].compactMap(\.self).joined(separator: ": ")
                let isToken = response.status == 401
                throw Retry.Attempt(
                    AWSFailure(
                        Retry.kind(code: code, status: response.status),
                        "single sign-on at \(endpoint.url): HTTP \(response.status), \(what)"
                            + (isToken ? ": \(remedy)" : ""), code: code))
            }
            return response.body
        }
        guard let role = (try? decode(Answer.self, body))?.roleCredentials else {
            throw AWSFailure(
                .unavailable,
                "single sign-on at \(endpoint.url): wanted JSON with a credential, got something"
                    + " else")
        }
        return AWSCredential(
            accessKeyID: role.accessKeyId, secretAccessKey: Secret(role.secretAccessKey.utf8),
            sessionToken: role.sessionToken.map { Secret($0.utf8) },
            expiry: WallTime(milliseconds: role.expiration),
            source: "single sign-on, role \(roleName) in \(accountID)")
    }

    private func cachePath(_ environment: AWSEnvironment) -> String {
        let key = Array((sessionName ?? startURL).utf8)
        var digest = [UInt8](repeating: 0, count: Int(SHA_DIGEST_LENGTH))
        _ = SHA1(key, key.count, &digest)
        let name = String(
            decoding: digest.flatMap { [hexDigit($0 >> 4), hexDigit($0 & 15)] }, as: UTF8.self)
        return environment.expanded("~/.aws/sso/cache/\(name).json")
    }

    private func currentToken(_ client: AWSClient) throws(AWSFailure) -> Token {
        let path = cachePath(client.settings.environment)
        guard let file = try contents(of: path) else {
            throw AWSFailure(
                .refused, "single sign-on: wanted a token in \(path), got no file: \(remedy)")
        }
        guard let token = try? decode(Token.self, file),
            let expiry = WallTime(iso8601: token.expiresAt)
        else {
            throw AWSFailure(
                .refused, "single sign-on: wanted a token in \(path), got something else: \(remedy)"
            )
        }
        let left = expiry.since(client.clock.now())
        if left > Self.renewal { return token }
        do throws(AWSFailure) {
            return try renew(token, path: path, client)
        } catch {
            // One that is about to end is good until it does.
            if left > .zero { return token }
            throw error
        }
    }

    private func renew(_ token: Token, path: String, _ client: AWSClient) throws(AWSFailure)
        -> Token
    {
        let registration = token.registrationExpiresAt.flatMap { WallTime(iso8601: $0) }
        guard let id = token.clientId, let secret = token.clientSecret,
            let refresh = token.refreshToken, registration.map({ $0 > client.clock.now() }) ?? true,
            let body = try? JSONEncoder().encode(
                Renewal(clientId: id, clientSecret: secret, refreshToken: refresh))
        else {
            throw AWSFailure(
                .refused, "single sign-on: the token in \(path) has expired: \(remedy)")
        }
        let endpoint = try client.settings.endpoint(.ssoOIDC, region: region)
        let response = try client.http.send(
            HTTPRequest(
                .post, endpoint.url + "token",
                headers: [HTTPHeader("Content-Type", "application/json")],
                body: Secret(body)))
        guard response.status == 200, let renewed = try? decode(Renewed.self, response.body) else {
            let (code, message) = AWSClient.error(in: response)
            let what = [code, message].compactMap(\.self).joined(separator: ": ")
            throw AWSFailure(
                .refused,
                "single sign-on at \(endpoint.url): wanted a new token, got HTTP"
                    + " \(response.status), \(what): \(remedy)", code: code)
        }
        var next = token
        next.accessToken = renewed.accessToken
        next.expiresAt = (client.clock.now() + .seconds(renewed.expiresIn)).iso8601
        next.refreshToken = renewed.refreshToken ?? token.refreshToken
        save(next, to: path)
        return next
    }

    /// A refresh token may be good for one use: the next renewal, and AWS's tools, need the new one.
    private func save(_ token: Token, to path: String) {
        guard let bytes = try? JSONEncoder().encode(token) else { return }
        let draft = path + ".\(getpid())"
        let descriptor = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return }
        let written = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
        if written != bytes.count || rename(draft, path) != 0 { unlink(draft) }
    }
}
