// Where a service of AWS is reached, by region, partition, FIPS and dual stack.
//
//   secretsmanager.us-east-1.amazonaws.com             plain
//   secretsmanager-fips.us-east-1.amazonaws.com        FIPS
//   secretsmanager.us-east-1.api.aws                   dual stack: IPv4 and IPv6
//
// A region's partition is told from its name, so that a region that is new to us works. Source of
// the rules: the endpoint rule sets and partitions.json of botocore 1.43, against which
// EndpointTests compares.

/// A place to send requests to: scheme, host and port, and no path.
package struct Endpoint: Sendable, Equatable {
    package let isTLS: Bool
    /// In lower case; an IPv6 address without its brackets.
    package let host: String
    /// nil: the scheme's own.
    package let port: UInt16?

    /// What stands in Host and is signed: without the scheme's own port.
    package var authority: String {
        let host = host.contains(":") ? "[\(host)]" : host
        return port.map { "\(host):\($0)" } ?? host
    }

    /// The URL of its root.
    package var url: String { "\(isTLS ? "https" : "http")://\(authority)/" }

    package init(isTLS: Bool = true, host: String, port: UInt16? = nil) {
        self.isTLS = isTLS
        self.host = host
        self.port = port == (isTLS ? 443 : 80) ? nil : port
    }

    /// Reads `http[s]://HOST[:PORT][/]`; the advice says what is wrong.
    package init(url: String) throws(Malformed) {
        let lowered = url.lowercased()
        let isTLS: Bool
        var rest: Substring
        if lowered.hasPrefix("https://") {
            (isTLS, rest) = (true, lowered.dropFirst(8))
        } else if lowered.hasPrefix("http://") {
            (isTLS, rest) = (false, lowered.dropFirst(7))
        } else {
            throw Malformed(advice: "begin with https:// or http://")
        }
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        guard !rest.contains(where: { "/?#@ ".contains($0) }) else {
            throw Malformed(advice: "give scheme, host and port only")
        }
        var port: UInt16?
        var host = rest
        if let colon = rest.lastIndex(of: ":"), !rest.hasSuffix("]") {
            guard let number = UInt16(rest[rest.index(after: colon)...]), number > 0 else {
                throw Malformed(advice: "a port is a number up to 65535")
            }
            port = number
            host = rest[..<colon]
        }
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = host.dropFirst().dropLast()
            let isAddress = host.utf8.allSatisfy {
                (0x30...0x39).contains($0) || (0x61...0x66).contains($0)
                    || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".")
            }
            guard host.contains(":"), isAddress else {
                throw Malformed(advice: "what is in brackets is no IPv6 address")
            }
        } else if !isHostName(String(host)) {
            throw Malformed(advice: "the host is missing, or is no host's name")
        }
        self.init(isTLS: isTLS, host: String(host), port: port)
    }

    /// A URL that is no endpoint.
    package struct Malformed: Error, Equatable {
        package let advice: String
    }
}

/// The services that are spoken to.
package enum Service: String, CaseIterable, Sendable {
    case sts
    case secretsManager = "secretsmanager"
    case elastiCache = "elasticache"
    case memoryDB = "memorydb"
    case sso = "portal.sso"
    case ssoOIDC = "oidc"

    /// In a credential scope.
    package var signingName: String {
        switch self {
        case .sso, .ssoOIDC: "awsssoportal"
        default: rawValue
        }
    }

    /// First label of host names.
    var prefix: String { self == .memoryDB ? "memory-db" : rawValue }

    /// Ends the variable `AWS_ENDPOINT_URL_…` that replaces its endpoint.
    ///
    /// Source: the service ids in botocore's models.
    var variableSuffix: String {
        switch self {
        case .sts: "STS"
        case .secretsManager: "SECRETS_MANAGER"
        case .elastiCache: "ELASTICACHE"
        case .memoryDB: "MEMORYDB"
        case .sso: "SSO"
        case .ssoOIDC: "SSO_OIDC"
        }
    }
}

/// A group of regions with names and an access management of its own.
struct Partition {
    /// As it stands in ARNs.
    let name: String
    let dnsSuffix: String
    let dualStackSuffix: String

    /// The partition of a region, told from how its name begins.
    init(region: String) {
        (name, dnsSuffix, dualStackSuffix) =
            switch region {
            case _ where region.hasPrefix("cn-"):
                ("aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn")
            case _ where region.hasPrefix("eusc-"):
                ("aws-eusc", "amazonaws.eu", "api.amazonwebservices.eu")
            case _ where region.hasPrefix("us-iso-"): ("aws-iso", "c2s.ic.gov", "api.aws.ic.gov")
            case _ where region.hasPrefix("us-isob-"):
                ("aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud")
            case _ where region.hasPrefix("eu-isoe-"):
                ("aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk")
            case _ where region.hasPrefix("us-isof-"):
                ("aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov")
            case _ where region.hasPrefix("us-gov-"): ("aws-us-gov", "amazonaws.com", "api.aws")
            default: ("aws", "amazonaws.com", "api.aws")
            }
    }
}

extension Endpoint {
    /// A service's own endpoint in a region; the region must be a region's name.
    package init(
        _ service: Service, region: String, usesFIPS: Bool = false, usesDualStack: Bool = false
    ) {
        let partition = Partition(region: region)
        // In GovCloud these meet FIPS at their plain names, and have no others.
        let isPlainFIPS =
            region.hasPrefix("us-gov-") && !usesDualStack
            && (service == .elastiCache || service == .sts || service == .sso
                || service == .ssoOIDC)
        let label = service.prefix + (usesFIPS && !isPlainFIPS ? "-fips" : "")
        // Secrets Manager's plain names have IPv6 addresses already in the large partitions.
        let isPlainDualStack =
            service == .secretsManager
            && (partition.dnsSuffix == "amazonaws.com" || region.hasPrefix("cn-") && !usesFIPS)
        let suffix =
            usesDualStack && !isPlainDualStack ? partition.dualStackSuffix : partition.dnsSuffix
        self.init(host: "\(label).\(region).\(suffix)")
    }
}
