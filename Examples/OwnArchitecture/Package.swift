// swift-tools-version: 6.2
// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

// A user's own package. Outside this repository the dependency is that of a repository and a version.
let package = Package(
    name: "OwnArchitecture",
    dependencies: [.package(name: "martlet", path: "../..")],
    targets: [
        .executableTarget(
            name: "OwnArchitecture",
            dependencies: [.product(name: "Martlet", package: "martlet")])
    ]
)
