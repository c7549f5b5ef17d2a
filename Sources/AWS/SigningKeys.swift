// The derived keys of SigV4, kept because a key serves a whole day:
//
//     secret ─HMAC─ date ─HMAC─ region ─HMAC─ service ─HMAC─ "aws4_request"
//
// Each is a Secret and dies zeroed when its place is taken.
//
// Source: AWS, "Create a signed AWS API request", section "Calculate the signature".

import Identity
import Synchronization

/// The newest derived keys, for all threads.
package final class SigningKeys: Sendable {
    /// How many are kept: yesterday's and today's for a few regions and services.
    static let capacity = 8

    private struct Entry {
        let secretAccessKey: Secret
        let scope: CredentialScope
        let key: Secret
    }

    private let entries = Mutex<[Entry]>([])

    package init() {}

    /// The key for a scope, derived now if it is not there.
    func key(for secretAccessKey: Secret, _ scope: CredentialScope) -> Secret {
        let known = entries.withLock { entries in
            entries.first { $0.scope == scope && $0.secretAccessKey == secretAccessKey }?.key
        }
        if let known { return known }
        var prefixed = WipedBuffer()
        prefixed.append("AWS4")
        prefixed.append(secretAccessKey)
        var key = prefixed.secret()
        for part in [scope.date, scope.region, scope.service, "aws4_request"] {
            key = authenticationCode(key: key, part)
        }
        let entry = Entry(secretAccessKey: secretAccessKey, scope: scope, key: key)
        entries.withLock { entries in
            if entries.count >= Self.capacity { entries.removeFirst() }
            entries.append(entry)
        }
        return entry.key
    }
}

/// What a signature is good for: a day, a region, a service.
package struct CredentialScope: Hashable, Sendable {
    let date: String
    let region: String
    let service: String

    package init(_ time: WallTime, region: String, service: String) {
        date = time.scopeDate
        self.region = region
        self.service = service
    }

    var text: String { "\(date)/\(region)/\(service)/aws4_request" }
}
