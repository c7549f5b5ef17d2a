// Signatures against golden vectors, which botocore made and plain hashing confirmed.

import AWS
import Identity
import Testing

struct TokenVectors: Decodable {
    struct Inputs: Decodable {
        let service: String
        let accessKeyId: String
        let secretAccessKey: String
        let sessionToken: String?
        let region: String
        let userId: String
        let cacheName: String
        let host: String
        let serverless: Bool
        let expiresSeconds: Int
        let timestamp: String
    }
    struct Vector: Decodable, CustomTestStringConvertible {
        let name: String
        let kind: String?
        let inputs: Inputs
        let canonicalRequest: String?
        let stringToSign: String?
        let token: String
        let signature: String?
        let publishedSignature: String?

        var testDescription: String { name }

        var credential: AWSCredential {
            AWSCredential(
                accessKeyID: inputs.accessKeyId,
                secretAccessKey: Secret(inputs.secretAccessKey),
                sessionToken: inputs.sessionToken.map { Secret($0) }, source: "vector")
        }

        /// The token for its cache, names as the rules want them.
        func signed() throws -> IAMToken {
            let request = try IAMTokenRequest(
                target: .elastiCache(name: inputs.cacheName, isServerless: inputs.serverless),
                user: inputs.userId, region: inputs.region)
            return IAMToken(
                for: request, signedBy: credential, keys: SigningKeys(),
                at: try #require(WallTime(iso8601: inputs.timestamp)))
        }

        /// Signed as it stands, without the rules for names.
        func presigned(keys: SigningKeys = SigningKeys()) throws -> (
            url: Secret, signed: SignatureV4.Signed
        ) {
            let signer = SignatureV4(
                credential: credential, region: inputs.region, service: inputs.service, keys: keys)
            var query = [(name: "Action", value: "connect"), (name: "User", value: inputs.userId)]
            if inputs.serverless {
                query.append((name: "ResourceType", value: "ServerlessCache"))
            }
            return signer.presign(
                host: inputs.host, query: query, expires: inputs.expiresSeconds,
                at: try #require(WallTime(iso8601: inputs.timestamp)))
        }
    }
    let vectors: [Vector]
    let externalKnownAnswers: [Vector]
}

struct HeaderVectors: Decodable {
    struct Inputs: Decodable {
        let service: String
        let url: String
        let accessKeyId: String
        let secretAccessKey: String
        let sessionToken: String?
        let region: String
        let headers: [String: String]
        let body: String
        let timestamp: String
    }
    struct Vector: Decodable, CustomTestStringConvertible {
        let name: String
        let inputs: Inputs
        let canonicalRequest: String
        let stringToSign: String
        let signature: String
        let authorization: String

        var testDescription: String { name }
    }
    let vectors: [Vector]
}

private let tokens = try! fixture("iam_tokens.json", as: TokenVectors.self)
private let headers = try! fixture("sigv4_headers.json", as: HeaderVectors.self)

/// Host and pairs of a token: their order means nothing.
private func parts(of token: String) -> [String] {
    let halves = token.split(separator: "/?", maxSplits: 1)
    return [String(halves[0])] + halves[1].split(separator: "&").map(String.init).sorted()
}

@Suite struct SignatureTests {
    @Test(arguments: tokens.vectors.filter { $0.kind != "as-given-trap" })
    func `a presigned request is botocore's`(vector: TokenVectors.Vector) throws {
        let (url, signed) = try vector.presigned()
        if let request = vector.canonicalRequest {
            #expect(signed.canonicalRequest.text == request)
            #expect(signed.stringToSign == vector.stringToSign)
        }
        #expect(signed.signature == vector.signature)
        #expect(parts(of: url.text) == parts(of: vector.token))
    }

    @Test(arguments: tokens.externalKnownAnswers)
    func `published signatures are reproduced`(vector: TokenVectors.Vector) throws {
        let token = try vector.signed()
        let signature = try #require(vector.publishedSignature)
        #expect(token.secret.text.hasSuffix("&X-Amz-Signature=\(signature)"))
    }

    @Test(arguments: headers.vectors)
    func `a request signed in headers is botocore's`(vector: HeaderVectors.Vector) throws {
        let inputs = vector.inputs
        let signer = SignatureV4(
            credential: AWSCredential(
                accessKeyID: inputs.accessKeyId,
                secretAccessKey: Secret(inputs.secretAccessKey),
                sessionToken: inputs.sessionToken.map { Secret($0) }, source: "vector"),
            region: inputs.region, service: inputs.service)
        let time = try #require(WallTime(iso8601: inputs.timestamp))
        let body = Array(inputs.body.utf8)
        let endpoint = try Endpoint(url: inputs.url)
        let (sent, signed) = body.withUnsafeBytes {
            signer.authorize(
                authority: endpoint.authority,
                headers: inputs.headers.map { (name: $0.key, value: $0.value) }, body: $0, at: time)
        }
        #expect(signed.canonicalRequest.text == vector.canonicalRequest)
        #expect(signed.stringToSign == vector.stringToSign)
        #expect(signed.signature == vector.signature)
        let authorization = sent.first { $0.name == "Authorization" }
        #expect(authorization?.value.text == vector.authorization)
    }

    @Test func `a session token of no length is none`() throws {
        let request = try IAMTokenRequest(
            target: .memoryDB(name: "c"), user: "u", region: "us-east-1")
        let token = IAMToken(
            for: request,
            signedBy: AWSCredential(
                accessKeyID: "A", secretAccessKey: Secret("s"), sessionToken: Secret(""),
                source: "test"),
            keys: SigningKeys(), at: WallTime(seconds: 0))
        #expect(!token.secret.text.contains("Security-Token"))
    }

    @Test func `derived keys are kept and give the same signatures`() throws {
        let keys = SigningKeys()
        // More scopes than are kept, twice.
        for round in 0..<2 {
            for vector in tokens.vectors where vector.kind == "generated" {
                let signature = try vector.presigned(keys: keys).signed.signature
                #expect(signature == vector.signature, "\(vector.name), round \(round)")
            }
        }
    }
}

@Suite struct IAMTokenTests {
    private let credential = AWSCredential(
        accessKeyID: "AKIDEXAMPLE",
        secretAccessKey: Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), source: "test")

    @Test(arguments: tokens.vectors.filter { $0.kind == "lowercased" })
    func `a cache's name is lowered before it is signed`(vector: TokenVectors.Vector) throws {
        let token = try vector.signed()
        #expect(parts(of: token.secret.text) == parts(of: vector.token))
    }

    @Test func `a user's id is lowered for caches and kept for databases`() throws {
        let cache = try IAMTokenRequest(
            target: .memoryDB(name: "C"), user: "App-User", region: "us-east-1")
        #expect(cache.user == "app-user")
        #expect(cache.host == "c")
        let database = try IAMTokenRequest(
            target: .database(host: "DB.example", port: 5432), user: "App", region: "us-east-1")
        #expect(database.user == "App")
        #expect(database.host == "db.example:5432")
        #expect(database.service == "rds-db")
    }

    @Test func `an endpoint is no cache's name`() {
        for name in [
            "master.my-rg.abc123.use1.cache.amazonaws.com", "my-cache:6379", "rediss://my-cache",
        ] {
            let error = #expect(throws: IAMTokenRequest.Unusable.self) {
                try IAMTokenRequest(target: .memoryDB(name: name), user: "u", region: "us-east-1")
            }
            #expect(error?.description.contains("looks like an endpoint") == true)
        }
    }

    @Test(arguments: ["", "1a", "a-", "a--b", "a_b", "-a", "ü", "a b"])
    func `what AWS does not take for a cache's name is refused`(name: String) {
        #expect(throws: IAMTokenRequest.Unusable.self) {
            try IAMTokenRequest(target: .memoryDB(name: name), user: "u", region: "us-east-1")
        }
    }

    @Test(arguments: ["", "US-EAST-1", "us east", "us-east-1.evil.example", "-a"])
    func `what is no region is refused`(region: String) {
        #expect(throws: IAMTokenRequest.Unusable.self) {
            try IAMTokenRequest(target: .memoryDB(name: "c"), user: "u", region: region)
        }
    }

    @Test func `a built-in user with a dot in its id is accepted`() throws {
        let request = try IAMTokenRequest(
            target: .memoryDB(name: "c"), user: "default.iam-user", region: "us-east-1")
        #expect(request.user == "default.iam-user")
    }

    @Test func `a token dies with the credential that signed it`() throws {
        let request = try IAMTokenRequest(
            target: .memoryDB(name: "c"), user: "u", region: "us-east-1")
        let now = WallTime(milliseconds: 1_000_400)
        var session = credential
        #expect(
            IAMToken(for: request, signedBy: session, keys: SigningKeys(), at: now).expiry
                == WallTime(seconds: 1900))
        session.expiry = WallTime(seconds: 1020)
        #expect(
            IAMToken(for: request, signedBy: session, keys: SigningKeys(), at: now).expiry
                == WallTime(seconds: 1020))
    }
}
