// Where AWS credentials are looked for, in this order; the first place that has any decides, and its
// failure is not hidden by a later one.
//
//   1  environment      AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
//   2  profile          AWS_PROFILE or default, in the shared files:
//                         role_arn with web_identity_token_file, source_profile or
//                         credential_source; then SSO; then credential_process; then keys
//   3  web identity     AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN (EKS: IRSA)
//   4  container        ECS, EKS Pod Identity
//   5  instance         EC2's instance metadata, version 2
//
// This is the order of AWS's SDK for Rust. AWS's SDKs differ here: botocore looks at the
// environment's web identity before static keys in a profile.
//
// Everything is read anew at each fetch: files change, tokens are replaced.

import Identity

/// Fetches a credential from wherever this process has one.
package struct ProviderChain: Sendable {
    private let client: AWSClient

    /// How many profiles may lead from one to the next.
    static let longestChain = 8

    package init(_ client: AWSClient) {
        self.client = client
    }

    private var environment: AWSEnvironment { client.settings.environment }

    /// One fetch; may take seconds, and with several attempts a minute.
    package func fetch() throws(AWSFailure) -> AWSCredential {
        if let credential = try fromEnvironment() { return credential }
        let files = try SharedFiles(environment)
        if let credential = try fromProfile(client.settings.profileName, files) {
            return credential
        }
        if let credential = try fromWebIdentity() { return credential }
        if let container = try ContainerCredentials(environment) {
            return try container.credential(client.http)
        }
        guard let instance = try InstanceMetadata(client.settings) else {
            throw nothing("instance metadata is switched off by AWS_EC2_METADATA_DISABLED")
        }
        do throws(AWSFailure) {
            return try instance.credential(client.http)
        } catch {
            if error.kind == .cancelled { throw error }
            throw nothing(error.reason, error.kind)
        }
    }

    private func nothing(_ last: String, _ kind: AWSFailure.Kind = .refused) -> AWSFailure {
        AWSFailure(
            kind,
            "no AWS credentials: none in the environment, none in profile"
                + " \(client.settings.profileName), no web identity, no container credentials, and"
                + " \(last)")
    }

    /// The region: configured, or the instance's own.
    package func region() throws(AWSFailure) -> String {
        if let region = client.settings.region {
            guard AWSNames.isRegion(region) else {
                throw AWSFailure(
                    .refused, "region: wanted a region such as us-east-1, got \"\(region)\"")
            }
            return region
        }
        guard let instance = try InstanceMetadata(client.settings) else {
            throw AWSFailure(
                .refused, "no region: set AWS_REGION, or region in the configuration or profile")
        }
        do throws(AWSFailure) {
            return try instance.region(client.http)
        } catch {
            if error.kind == .cancelled { throw error }
            throw AWSFailure(
                error.kind,
                "no region: set AWS_REGION, or region in the configuration or profile"
                    + " (\(error.reason))")
        }
    }

    private func fromEnvironment() throws(AWSFailure) -> AWSCredential? {
        let key = environment["AWS_ACCESS_KEY_ID"]
        let secret = environment.secret("AWS_SECRET_ACCESS_KEY")
        switch (key, secret) {
        case (nil, nil): return nil
        case (let key?, let secret?):
            return AWSCredential(
                accessKeyID: key.trimmed(), secretAccessKey: secret,
                sessionToken: environment.secret("AWS_SESSION_TOKEN"), source: "the environment")
        case (_?, nil):
            throw AWSFailure(
                .refused, "environment: wanted AWS_SECRET_ACCESS_KEY with AWS_ACCESS_KEY_ID")
        case (nil, _?):
            throw AWSFailure(
                .refused, "environment: wanted AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY")
        }
    }

    private func fromWebIdentity() throws(AWSFailure) -> AWSCredential? {
        guard let file = environment["AWS_WEB_IDENTITY_TOKEN_FILE"] else { return nil }
        guard let role = environment["AWS_ROLE_ARN"] else {
            throw AWSFailure(
                .refused, "environment: wanted AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE")
        }
        return try assume(
            RoleRequest(arn: role, sessionName: environment["AWS_ROLE_SESSION_NAME"]),
            webIdentityFile: file)
    }

    private func assume(_ role: RoleRequest, webIdentityFile file: String) throws(AWSFailure)
        -> AWSCredential
    {
        let path = environment.expanded(file)
        guard let token = try contents(of: path, limit: 64 * 1024), !token.isBlank else {
            throw AWSFailure(
                .unavailable, "web identity: wanted a token in \(path), got no file or an empty one"
            )
        }
        return try client.assumeRole(
            role, webIdentity: token.withoutFinalLineBreak(), region: client.settings.region,
            source: "role \(role.arn), by the web identity in \(path)")
    }
}

// MARK: - Profiles

extension ProviderChain {
    /// nil: the profile is not there, and nobody asked for it, or has nothing for us.
    private func fromProfile(
        _ name: String, _ files: SharedFiles, from visited: [String] = []
    ) throws(AWSFailure) -> AWSCredential? {
        guard let profile = files.profiles[name] else {
            guard !visited.isEmpty || client.settings.isProfileNamed else { return nil }
            throw AWSFailure(
                .refused,
                "profile \(name): wanted it in \(files.configPath) or \(files.credentialsPath),"
                    + " got none"
                    + (visited.last.map { "; profile \($0) names it as its source_profile" } ?? ""))
        }
        guard !visited.contains(name), visited.count < Self.longestChain else {
            throw AWSFailure(
                .refused,
                "profile \(name): its source_profile leads back to it:"
                    + " \((visited + [name]).joined(separator: ", "))")
        }
        // As a source, a profile with keys is where the chain ends.
        if !visited.isEmpty, let keys = try keys(profile, name, files) { return keys }
        if let role = try fromRole(profile, name, files, visited) { return role }
        if let signOn = try SingleSignOn(profile: profile, named: name, files: files) {
            return try signOn.credential(client)
        }
        if let commandLine = profile["credential_process"] {
            guard let process = CredentialProcess(commandLine: commandLine) else {
                throw AWSFailure(
                    .refused,
                    "profile \(name): wanted a command as credential_process, got an open quote")
            }
            return try process.credential(client.http.cancellation)
        }
        if let keys = try keys(profile, name, files) { return keys }
        guard visited.isEmpty else {
            throw AWSFailure(
                .refused, "profile \(name): wanted credentials for another profile, got none")
        }
        return nil
    }

    private func keys(
        _ profile: SharedFiles.Section, _ name: String, _ files: SharedFiles
    ) throws(AWSFailure) -> AWSCredential? {
        switch (profile["aws_access_key_id"], profile.secrets["aws_secret_access_key"]) {
        case (nil, nil): return nil
        case (let key?, let secret?) where !secret.isBlank:
            return AWSCredential(
                accessKeyID: key, secretAccessKey: secret,
                sessionToken: profile.secrets["aws_session_token"], source: "profile \(name)")
        default:
            throw AWSFailure(
                .refused,
                "profile \(name): wanted aws_access_key_id and aws_secret_access_key together, got"
                    + " one of them, in \(files.credentialsPath) or \(files.configPath)")
        }
    }

    private func fromRole(
        _ profile: SharedFiles.Section, _ name: String, _ files: SharedFiles, _ visited: [String]
    ) throws(AWSFailure) -> AWSCredential? {
        guard let arn = profile["role_arn"] else { return nil }
        guard profile["mfa_serial"] == nil else {
            throw AWSFailure(
                .refused,
                "profile \(name): wanted a role without mfa_serial, because there is nobody to type"
                    + " a code here")
        }
        var role = RoleRequest(
            arn: arn, sessionName: profile["role_session_name"], externalID: profile["external_id"])
        if let text = profile["duration_seconds"] {
            guard let seconds = Int(text), (1...43_200).contains(seconds) else {
                throw AWSFailure(
                    .refused,
                    "profile \(name): wanted duration_seconds of 1 to 43200, got \"\(text)\"")
            }
            role.durationSeconds = seconds
        }
        if let file = profile["web_identity_token_file"] {
            return try assume(role, webIdentityFile: file)
        }
        let base: AWSCredential
        switch (profile["source_profile"], profile["credential_source"]) {
        case (let source?, nil) where source == name:
            guard let own = try keys(profile, name, files) else {
                throw AWSFailure(
                    .refused,
                    "profile \(name): names itself as source_profile, and so wanted keys of its"
                        + " own, got none")
            }
            base = own
        case (let source?, nil):
            guard let found = try fromProfile(source, files, from: visited + [name]) else {
                throw AWSFailure(
                    .refused, "profile \(source): wanted credentials for \(name), got none")
            }
            base = found
        case (nil, let source?): base = try fromSource(source, name)
        case (.some, .some), (nil, nil):
            throw AWSFailure(
                .refused,
                "profile \(name): wanted either source_profile or credential_source with role_arn,"
                    + " got \(profile["source_profile"] == nil ? "none" : "both")")
        }
        return try client.assumeRole(
            role, as: base, region: client.settings.region ?? profile["region"])
    }

    private func fromSource(_ source: String, _ name: String) throws(AWSFailure) -> AWSCredential {
        let place = "profile \(name), credential_source \(source)"
        switch source {
        case "Environment":
            guard let credential = try fromEnvironment() else {
                throw AWSFailure(.refused, "\(place): wanted AWS_ACCESS_KEY_ID, got none")
            }
            return credential
        case "EcsContainer":
            guard let container = try ContainerCredentials(environment) else {
                throw AWSFailure(
                    .refused, "\(place): wanted AWS_CONTAINER_CREDENTIALS_…_URI, got none")
            }
            return try container.credential(client.http)
        case "Ec2InstanceMetadata":
            guard let instance = try InstanceMetadata(client.settings) else {
                throw AWSFailure(.refused, "\(place): AWS_EC2_METADATA_DISABLED is set")
            }
            return try instance.credential(client.http)
        default:
            throw AWSFailure(
                .refused,
                "profile \(name): wanted Environment, EcsContainer or Ec2InstanceMetadata as"
                    + " credential_source, got \"\(source)\"")
        }
    }
}
