// An IAM token: signed anew for each login.

import AWS
import Benchmark
import Identity

func signingBenchmarks() throws {
    let request = try IAMTokenRequest(
        target: .elastiCache(name: "my-cache", isServerless: false), user: "app",
        region: "us-east-1")
    let credential = AWSCredential(
        accessKeyID: "AKIDEXAMPLE",
        secretAccessKey: Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".utf8),
        sessionToken: Secret(text(400).utf8),
        source: "a benchmark"
    )
    let keys = SigningKeys()
    let time = WallTime(seconds: 1_767_225_599)
    measure("SigV4: an ElastiCache token") { times in
        for _ in 0..<times {
            blackHole(
                IAMToken(for: request, signedBy: credential, keys: keys, at: time).secret.count)
        }
    }
    measure("SigV4: the first token of a day") { times in
        for _ in 0..<times {
            blackHole(
                IAMToken(for: request, signedBy: credential, keys: SigningKeys(), at: time)
                    .secret.count)
        }
    }
}
