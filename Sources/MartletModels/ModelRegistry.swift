// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
public import MartletFormats

/// Architectures that checkpoints may name: a value, so that a program can add its own.
public struct ModelRegistry: Sendable {
    private let architectures: [any ModelArchitecture.Type]

    /// Collects architectures; a later one of the same name wins.
    public init(_ architectures: [any ModelArchitecture.Type]) {
        self.architectures = architectures
    }

    /// The architectures of Martlet.
    public static let builtIn = ModelRegistry([
        Baichuan.self,
        Llama.self,
        Mistral.self,
        Qwen2.self,
    ])

    /// These architectures and more.
    public static func + (a: ModelRegistry, b: [any ModelArchitecture.Type]) -> ModelRegistry {
        ModelRegistry(a.architectures + b)
    }

    /// Class names that are known.
    public var names: [String] { architectures.flatMap { $0.names } }

    /// Full names of the types, in order: what a checkpoint becomes depends on them.
    package var typeNames: [String] { architectures.map { String(reflecting: $0) } }

    /// Makes the architecture a configuration names.
    ///
    /// - Throws: `MartletError` `.unsupported` naming what is known.
    public func architecture(
        named wanted: [String], _ configuration: ConfigurationReader
    ) throws -> any ModelArchitecture {
        for name in wanted {
            if let type = architectures.last(where: { $0.names.contains(name) }) {
                return try type.init(configuration)
            }
        }
        throw MartletError(
            .unsupported,
            "architecture \(wanted.isEmpty ? "(none named)" : wanted.joined(separator: ", ")) of "
                + "\(configuration.origin) is not known",
            mend: "Known: \(names.joined(separator: ", "))")
    }
}
