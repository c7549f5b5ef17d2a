// swift-tools-version: 6.2
import PackageDescription

// The rooms and the only directions in which they may know one another:
//
//                        RedisAuthProxy            commands and wiring
//        ┌─────────────┬───────┴──────┬───────────┬──────────┐
//      Admin           │              │           │          │
//        │             │              │           │          │
//      Server     Configuration  Credentials  Rotation   Telemetry
//      ┌──┴─────┐        │         ┌──┴──┐        │
//    Proxy   Transport   │         │    AWS ◄─────┘
//    ┌─┴──┐              ▼         ▼     │
//   RESP  └──────────► Identity ◄──┴─────┘
//
// Data plane: Server, Proxy, RESP, Transport.   Control plane: Admin, Configuration, Credentials,
// Rotation, AWS.
// Telemetry is a leaf: Admin, Server, Configuration and Credentials may use it. Admin reads what Server
// reports, and so knows the values of Proxy, Transport, Configuration and Identity.

let settings: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let log = Target.Dependency.product(name: "Logging", package: "swift-log")
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")

let package = Package(
    name: "redis-auth-proxy",
    products: [
        .executable(name: "redis-auth-proxy", targets: ["RedisAuthProxy"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/swhitty/FlyingFox", from: "0.27.1"),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        .systemLibrary(name: "CEv", providers: [.apt(["libev-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(
            name: "CCurl",
            pkgConfig: "libcurl",
            providers: [.apt(["libcurl4-openssl-dev"])]
        ),

        // Data plane
        .target(name: "RESP", swiftSettings: settings),
        .target(
            name: "Proxy",
            dependencies: ["RESP", "Identity", histogram],
            swiftSettings: settings
        ),
        .target(name: "Transport", dependencies: ["CEv", "COpenSSL"], swiftSettings: settings),
        .target(
            name: "Server",
            dependencies: ["Proxy", "Transport", "Telemetry"],
            swiftSettings: settings
        ),

        // Where the planes meet, as values
        .target(name: "Identity", dependencies: ["COpenSSL"], swiftSettings: settings),
        .target(name: "Telemetry", dependencies: [log], swiftSettings: settings),

        // Control plane
        .target(
            name: "AWS",
            dependencies: ["Identity", "CCurl", "COpenSSL"],
            swiftSettings: settings
        ),
        .target(
            name: "Credentials",
            dependencies: ["Identity", "Telemetry", "AWS", log],
            swiftSettings: settings
        ),
        .target(name: "Rotation", dependencies: ["Identity", "AWS"], swiftSettings: settings),
        .target(
            name: "Configuration",
            dependencies: ["Identity", "Telemetry", log, "Yams"],
            swiftSettings: settings
        ),

        .target(
            name: "Admin",
            dependencies: [
                "Server", "Proxy", "RESP", "Transport", "Configuration", "Telemetry", "Identity",
                log,
                histogram,
                .product(name: "FlyingFox", package: "FlyingFox"),
                .product(name: "FlyingSocks", package: "FlyingFox"),
            ],
            swiftSettings: settings
        ),

        // Commands and wiring
        .executableTarget(
            name: "RedisAuthProxy",
            dependencies: [
                "Server", "Admin", "Configuration", "Credentials", "Rotation", "Telemetry", "Proxy",
                "Transport", "AWS", "Identity", "COpenSSL", log,
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: settings
        ),

        .target(name: "CAllocationCount", path: "Tests/CAllocationCount"),
        .testTarget(
            name: "RESPTests",
            dependencies: ["RESP", "CAllocationCount"],
            swiftSettings: settings
        ),
        .testTarget(name: "IdentityTests", dependencies: ["Identity"], swiftSettings: settings),
        .testTarget(
            name: "ProxyTests",
            dependencies: ["Proxy", "Identity", "CAllocationCount", histogram],
            swiftSettings: settings
        ),
        .testTarget(
            name: "TransportTests",
            dependencies: ["Transport", "COpenSSL"],
            swiftSettings: settings
        ),
        .testTarget(name: "ServerTests", dependencies: ["Server"], swiftSettings: settings),
        .testTarget(name: "AWSTests", dependencies: ["AWS", "Identity"], swiftSettings: settings),
        .testTarget(
            name: "CredentialsTests",
            dependencies: ["Credentials", "AWS", "Identity", "Telemetry", log],
            swiftSettings: settings
        ),
        .testTarget(
            name: "RotationTests",
            dependencies: ["Rotation", "AWS", "Identity"],
            swiftSettings: settings
        ),
        .testTarget(
            name: "ConfigurationTests",
            dependencies: ["Configuration", "Identity"],
            swiftSettings: settings
        ),
        .testTarget(
            name: "AdminTests",
            dependencies: [
                "Admin", "Configuration", "Server", "Proxy", "Transport", "Telemetry", "Identity",
                log,
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "TelemetryTests",
            dependencies: ["Telemetry", log],
            swiftSettings: settings
        ),
    ],
    swiftLanguageModes: [.v6]
)
