// The program as the rotation function of Secrets Manager in AWS Lambda: no arguments, and
// AWS_LAMBDA_RUNTIME_API in the environment. FunctionSettings has AWS's variables; these say where the
// servers are, with the meaning of the flags of `rotate`:
//
//   REDIS_AUTH_PROXY_ROTATE_SERVER         --server, several separated by commas
//   REDIS_AUTH_PROXY_ROTATE_SERVER_NAME    --server-name
//   REDIS_AUTH_PROXY_ROTATE_CA_FILE        --ca-file
//   REDIS_AUTH_PROXY_ROTATE_ADMIN_SECRET   --admin-secret

import AWS
import Glibc
import Identity
import Logging
import Rotation
import Telemetry
import Transport

/// Serves rotations one step at a time.
struct RotationFunction {
    private static let apiVariable = "AWS_LAMBDA_RUNTIME_API"
    private static let prefix = "REDIS_AUTH_PROXY_ROTATE_"

    private let api: String
    private let logger: Logger

    /// nil: this process is none. With arguments it never is: the proxy may run beside a function,
    /// in its environment.
    init?(argumentCount: Int) {
        guard argumentCount <= 1, let api = Self.variable(Self.apiVariable) else { return nil }
        self.api = api
        logger = Log.make(
            "rotation", level: .info,
            format: Self.variable("AWS_LAMBDA_LOG_FORMAT") == "JSON" ? .json : .text)
    }

    /// Serves until Lambda ends the process.
    func run() -> Never {
        do { try prepareProcess(blocking: []) } catch { exit(Exit.system.rawValue) }
        let runtime = LambdaRuntime(api: api)
        do throws(RotationFailure) {
            let settings: FunctionSettings
            let access: AWSAccess
            do throws(RotationFailure) {
                settings = try FunctionSettings(Self.variable)
                access = try Self.access(settings)
            } catch {
                logger.critical("\(error)")
                try runtime.report(unusable: error)
                exit(Exit.configuration.rawValue)
            }
            let places = Self.places(settings, access)
            try runtime.serve { invocation throws(RotationFailure) in
                try handle(invocation, settings, places)
            }
        } catch {
            logger.critical("\(error)")
            exit(Exit.unavailable.rawValue)
        }
    }

    private func handle(
        _ invocation: LambdaInvocation, _ settings: FunctionSettings, _ places: RotationPlaces
    ) throws(RotationFailure) {
        var logger = logger
        logger[metadataKey: "request"] = "\(invocation.id)"
        do throws(RotationFailure) {
            let request = try RotationRequest(event: invocation.event)
            logger[metadataKey: "secret"] = "\(request.secretID)"
            try settings.check(request)
            let region: String
            if let named = AWSNames.region(ofSecret: request.secretID) {
                region = named
            } else {
                region = try places.access.region()
            }
            let store = SecretsManagerStore(
                request.secretID, region: region, access: places.access,
                rotationToken: request.rotationToken)
            let rotation = Rotation(
                store, token: request.token,
                settings: settings.rotation(until: invocation.deadline),
                target: { document throws(RotationFailure) in try places.target(document) },
                note: { note in
                    logger.log(
                        level: note.kind == .warning ? .warning : .info, "\(note.message)",
                        metadata: ["step": "\(note.step.rawValue)"])
                })
            try rotation.perform(request.step)
        } catch {
            logger.error("\(error)")
            throw error
        }
    }

    private static func variable(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    }

    private static func access(_ settings: FunctionSettings) throws(RotationFailure) -> AWSAccess {
        var environment = AWSEnvironment.ofProcess()
        // The variable that all of AWS's tools know goes over the function's own.
        let name = "AWS_ENDPOINT_URL_SECRETS_MANAGER"
        if let endpoint = settings.secretsManagerEndpoint, environment[name] == nil {
            environment = environment.setting(name, to: endpoint)
        }
        do throws(AWSFailure) {
            return AWSAccess(AWSClient(try AWSSettings(environment)))
        } catch {
            throw RotationFailure(error)
        }
    }

    private static func places(
        _ settings: FunctionSettings, _ access: AWSAccess
    ) -> RotationPlaces {
        var places = RotationPlaces(access: access)
        places.userName = settings.userName
        places.serverURLs =
            variable(prefix + "SERVER")?.split(separator: ",").map {
                $0.filter { !$0.isWhitespace }
            } ?? []
        places.serverName = variable(prefix + "SERVER_NAME")
        places.tls = TLSSettings(caFile: variable(prefix + "CA_FILE"))
        places.administrator = variable(prefix + "ADMIN_SECRET").map { .secret($0) }
        return places
    }
}
