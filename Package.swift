// swift-tools-version: 6.3
// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

/// Settings of every Swift target: a layer states which imports it passes on, and existentials are visible.
let swiftSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// Settings of the examples: those of a user's package.
let exampleSettings: [SwiftSetting] = [.swiftLanguageMode(.v6)]

/// A library target of layer N: `dependencies` may only name targets of lower layers (scripts/check-layers).
func layer(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: swiftSettings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .testTarget(
        name: name + "Tests", dependencies: [.byName(name: name)] + dependencies,
        swiftSettings: swiftSettings)
}

let package = Package(
    name: "martlet",
    products: [
        .library(name: "Martlet", targets: ["Martlet"]),
        .library(name: "MartletHub", targets: ["MartletHub"]),
        .executable(name: "martlet", targets: ["MartletCLI"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    ],
    targets: [
        // Layer 0
        .target(name: "CMartletCUDASources", exclude: ["kernels"]),
        .target(name: "CMartletDriver", linkerSettings: [.linkedLibrary("dl")]),
        .target(name: "CMartletMicrokernels"),
        // Layer 1
        layer("MartletCore"),
        // Layer 2
        layer("MartletEngineFile", ["MartletCore"]),
        layer("MartletEvaluation", ["MartletCore"]),
        layer("MartletFormats", ["MartletCore"]),
        layer("MartletGraph", ["MartletCore"]),
        layer("MartletQuantization", ["MartletCore"]),
        layer("MartletTokenizer", ["MartletCore"]),
        // Layer 3
        layer("MartletBackend", ["MartletCore", "MartletEngineFile"]),
        layer("MartletModels", ["MartletCore", "MartletFormats", "MartletGraph"]),
        // Layer 4
        layer(
            "MartletCompiler",
            [
                "MartletBackend", "MartletCore", "MartletEngineFile", "MartletGraph",
                "MartletModels", "MartletQuantization",
            ]),
        layer(
            "MartletCPU",
            ["CMartletMicrokernels", "MartletBackend", "MartletCore", "MartletEngineFile"]),
        layer(
            "MartletCUDA",
            [
                "CMartletCUDASources", "CMartletDriver", "MartletBackend", "MartletCore",
                "MartletEngineFile", .product(name: "Crypto", package: "swift-crypto"),
            ]),
        layer("MartletReference", ["MartletCore", "MartletGraph"]),
        // Layer 5
        layer(
            "MartletConformance",
            [
                "MartletBackend", "MartletCore", "MartletEngineFile", "MartletGraph",
                "MartletReference",
            ]),
        layer("MartletRuntime", ["MartletBackend", "MartletCore"]),
        layer(
            "MartletTestSupport",
            [
                "MartletBackend", "MartletCPU", "MartletCompiler", "MartletCore",
                "MartletEngineFile", "MartletFormats", "MartletGraph", "MartletModels",
                "MartletReference",
            ]),
        // Layer 6
        layer(
            "Martlet",
            [
                "MartletBackend", "MartletCPU", "MartletCUDA", "MartletCompiler", "MartletCore",
                "MartletEngineFile", "MartletEvaluation", "MartletFormats", "MartletGraph",
                "MartletModels", "MartletQuantization", "MartletRuntime", "MartletTokenizer",
                .product(name: "Crypto", package: "swift-crypto"),
            ]),
        layer(
            "MartletHub",
            [
                "MartletCore", .product(name: "AsyncHTTPClient", package: "async-http-client"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        // Layer 8
        .executableTarget(
            name: "MartletCLI",
            dependencies: [
                "Martlet", "MartletBackend", "MartletCPU", "MartletCUDA", "MartletCompiler",
                "MartletConformance", "MartletCore", "MartletEngineFile", "MartletEvaluation",
                "MartletHub", "MartletTokenizer",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ], swiftSettings: swiftSettings),
        // Examples: use the public interface only
        .executableTarget(
            name: "OwnModel", dependencies: ["Martlet"], path: "Examples/OwnModel",
            swiftSettings: exampleSettings),
        .executableTarget(
            name: "StreamAnswer", dependencies: ["Martlet"], path: "Examples/StreamAnswer",
            swiftSettings: exampleSettings),
        .executableTarget(
            name: "ManyRequests", dependencies: ["Martlet"], path: "Examples/ManyRequests",
            swiftSettings: exampleSettings),
        // Checks against what others wrote; see scripts/
        .executableTarget(
            name: "TokenizerCheck",
            dependencies: ["MartletCore", "MartletFormats", "MartletTokenizer"],
            path: "Benchmarks/TokenizerCheck", swiftSettings: swiftSettings),
        // Tests
        tests("MartletBackend", ["MartletCore", "MartletEngineFile"]),
        tests(
            "MartletConformance",
            ["MartletBackend", "MartletCore", "MartletCPU", "MartletEngineFile"]),
        tests("MartletCLI", ["MartletCore"]),
        tests(
            "MartletCompiler",
            [
                "MartletBackend", "MartletCPU", "MartletCore", "MartletEngineFile",
                "MartletFormats", "MartletGraph", "MartletModels", "MartletQuantization",
                "MartletReference", "MartletTestSupport",
            ]),
        tests("MartletCore"),
        tests(
            "Martlet",
            [
                "MartletBackend", "MartletCPU", "MartletCore", "MartletEngineFile", "MartletHub",
                "MartletModels", "MartletReference", "MartletRuntime", "MartletTestSupport",
            ]),
        tests("MartletCPU", ["MartletBackend", "MartletCore", "MartletEngineFile"]),
        tests(
            "MartletCUDA",
            [
                "CMartletDriver", "MartletBackend", "MartletCPU", "MartletCompiler", "MartletCore",
                "MartletEngineFile", "MartletModels", "MartletTestSupport",
            ]),
        tests("MartletEngineFile", ["MartletCore"]),
        tests("MartletEvaluation", ["MartletCore"]),
        tests("MartletFormats", ["MartletCore", "MartletQuantization"]),
        tests("MartletGraph", ["MartletCore"]),
        tests(
            "MartletHub",
            [
                "MartletCLI", "MartletCore",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ]),
        tests(
            "MartletModels",
            [
                "MartletCPU", "MartletCompiler", "MartletCore", "MartletEngineFile",
                "MartletFormats", "MartletGraph", "MartletTestSupport",
            ]),
        tests("MartletQuantization", ["MartletCore"]),
        tests("MartletReference", ["MartletCore", "MartletGraph"]),
        .target(name: "CMartletAllocationCounter", path: "Tests/AllocationCounter"),
        tests(
            "MartletRuntime", ["CMartletAllocationCounter", "MartletBackend", "MartletCore"]),
        .testTarget(
            name: "MartletTokenizerTests", dependencies: ["MartletCore", "MartletTokenizer"],
            exclude: ["Fixtures"], swiftSettings: swiftSettings),
    ],
    cLanguageStandard: .gnu2x
)
