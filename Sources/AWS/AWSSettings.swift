// What environment and shared files say about the way to AWS: profile, region, endpoints.

/// The settings of this process; shared files are read once, when it is made.
package struct AWSSettings: Sendable {
    package let environment: AWSEnvironment
    let files: SharedFiles
    /// The profile in use.
    package let profileName: String
    /// Somebody asked for the profile, so that it must be there.
    let isProfileNamed: Bool

    /// - Parameter profile: goes over `AWS_PROFILE`.
    /// - Throws: `refused` if a file cannot be read or the profile that was asked for is not there.
    package init(_ environment: AWSEnvironment, profile: String? = nil) throws(AWSFailure) {
        self.environment = environment
        files = try SharedFiles(environment)
        let named = profile ?? environment["AWS_PROFILE"]
        profileName = named ?? "default"
        isProfileNamed = named != nil
        if isProfileNamed, files.profiles[profileName] == nil {
            let names = files.profiles.keys.sorted().joined(separator: ", ")
            throw AWSFailure(
                .refused,
                "AWS profile: wanted \"\(profileName)\" in \(files.configPath) or"
                    + " \(files.credentialsPath), got "
                    + (names.isEmpty ? "no profiles there" : "only \(names)"))
        }
    }

    var profile: SharedFiles.Section { files.profiles[profileName] ?? SharedFiles.Section() }

    /// A setting that has a variable and a property; the variable wins.
    func value(_ variable: String, _ property: String) -> String? {
        environment[variable] ?? profile[property]
    }

    func isTrue(_ variable: String, _ property: String) -> Bool {
        value(variable, property)?.trimmed().lowercased() == "true"
    }

    /// The region that is configured: `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's.
    package var region: String? {
        environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? profile["region"]
    }

    /// `AWS_CA_BUNDLE`: certificates to trust for AWS in place of the system's.
    package var caBundle: String? {
        value("AWS_CA_BUNDLE", "ca_bundle").map(environment.expanded)
    }

    /// Where a service is: what was configured in place of its own endpoint, or that.
    ///
    /// Source of the order: AWS SDKs and Tools Reference Guide, "Service-specific endpoints".
    package func endpoint(_ service: Service, region: String) throws(AWSFailure) -> Endpoint {
        if let (url, place) = configuredURL(service) {
            do throws(Endpoint.Malformed) {
                return try Endpoint(url: url)
            } catch {
                throw AWSFailure(
                    .refused,
                    "\(place): wanted the URL of an endpoint, got \"\(url)\": \(error.advice)")
            }
        }
        return Endpoint(
            service, region: region,
            usesFIPS: isTrue("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint"),
            usesDualStack: isTrue("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"))
    }

    private func configuredURL(_ service: Service) -> (url: String, place: String)? {
        guard
            !isTrue(
                "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls")
        else { return nil }
        let variable = "AWS_ENDPOINT_URL_\(service.variableSuffix)"
        if let url = environment[variable] { return (url, variable) }
        if let url = environment["AWS_ENDPOINT_URL"] { return (url, "AWS_ENDPOINT_URL") }
        let key = service.variableSuffix.lowercased()
        if let section = profile["services"],
            let url = files.services[section]?.nested[key]?["endpoint_url"]
        {
            return (url, "services \(section), \(key), endpoint_url")
        }
        return profile["endpoint_url"].map { ($0, "profile \(profileName), endpoint_url") }
    }
}
