// AWS with a credential that is good for the next request: a rotation may take longer than one lives.

package import AWS

/// This process's way to AWS. Used by one thread at a time.
package final class AWSAccess {
    /// A credential that ends sooner is not used for another request.
    static let margin: Duration = .seconds(60)

    package let client: AWSClient
    private let chain: ProviderChain
    private var credential: AWSCredential?

    package init(_ client: AWSClient) {
        self.client = client
        chain = ProviderChain(client)
    }

    /// The region that is configured, or the instance's own.
    package func region() throws(RotationFailure) -> String {
        do throws(AWSFailure) {
            return try chain.region()
        } catch {
            throw RotationFailure(error)
        }
    }

    /// Asks for something; once more with a new credential if this one has expired.
    package func callAsFunction<Answer>(
        _ ask: (AWSClient, AWSCredential) throws(AWSFailure) -> Answer
    ) throws(RotationFailure) -> Answer {
        do throws(AWSFailure) {
            let held = try current()
            do throws(AWSFailure) {
                return try ask(client, held)
            } catch {
                guard error.code == "ExpiredTokenException" || error.code == "ExpiredToken" else {
                    throw error
                }
                credential = nil
                return try ask(client, try current())
            }
        } catch {
            throw RotationFailure(error)
        }
    }

    private func current() throws(AWSFailure) -> AWSCredential {
        if let credential {
            guard let expiry = credential.expiry, expiry.since(client.clock.now()) < Self.margin
            else { return credential }
        }
        let fetched = try chain.fetch()
        credential = fetched
        return fetched
    }
}
