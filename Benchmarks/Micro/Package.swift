// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that the product depends on no benchmark library. The rooms are compiled
// here from the product's own files (Product is a link to Sources), which makes what they declare
// as `package` visible without making it public.

let package = Package(
    name: "micro",
    dependencies: [
        // Without its interposers: they count what other libraries' threads allocate too, and slow
        // what is measured. Allocations are counted by CAllocationCount, as in the unit tests.
        .package(url: "https://github.com/ordo-one/benchmark", from: "1.38.1", traits: []),
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
    ],
    targets: [
        .systemLibrary(name: "CEv", path: "Product/CEv"),
        .systemLibrary(name: "COpenSSL", path: "Product/COpenSSL", pkgConfig: "openssl"),
        .systemLibrary(name: "CCurl", path: "Product/CCurl", pkgConfig: "libcurl"),
        room("RESP"),
        room("Identity", ["COpenSSL"]),
        room(
            "Proxy",
            ["RESP", "Identity", .product(name: "Histogram", package: "hdrhistogram-swift")]),
        room("Transport", ["CEv", "COpenSSL"]),
        room("AWS", ["Identity", "CCurl", "COpenSSL"]),
        .target(name: "CAllocationCount", path: "CAllocationCount"),
        .executableTarget(
            name: "HotPath",
            dependencies: [
                "RESP", "Identity", "Proxy", "Transport", "AWS", "COpenSSL", "CAllocationCount",
                .product(name: "Benchmark", package: "benchmark"),
            ],
            path: "Benchmarks/HotPath",
            plugins: [.plugin(name: "BenchmarkPlugin", package: "benchmark")]
        ),
    ],
    swiftLanguageModes: [.v6]
)

func room(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: name,
        dependencies: dependencies,
        path: "Product/\(name)",
        swiftSettings: [
            .enableUpcomingFeature("ExistentialAny"),
            .enableUpcomingFeature("InternalImportsByDefault"),
        ]
    )
}
