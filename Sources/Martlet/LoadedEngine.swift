// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
package import MartletCore
package import MartletEngineFile

/// An engine in memory: plans, packed weights, text description.
///
/// Made by the builder or read from a file.
package struct LoadedEngine: Sendable {
    /// Plans in the order of entry points.
    package var plans: [Plan]
    /// Packed weights.
    package var parameters: ParameterBytes
    /// What the engine is.
    package var description: EngineDescription
    /// Kernels compiled for GPUs, by module identity.
    package var deviceCode: [String: ByteView] = [:]
    /// Where it was read from; nil if it was built in memory.
    package var path: String?
    var text: TextDescription

    init(
        plans: [Plan], parameters: ParameterBytes, description: EngineDescription, path: String?,
        text: TextDescription
    ) {
        self.plans = plans
        self.parameters = parameters
        self.description = description
        self.path = path
        self.text = text
    }

    /// Takes a device's plans and weights out of an engine file.
    ///
    /// - Throws: `MartletError` `.unsupported` if it has none for the device, `.corrupt` if they do
    ///   not fit together.
    init(_ file: EngineFileReader, for device: EngineTarget) throws {
        plans = try file.manifest.entryPoints.map { try file.plan(entryPoint: $0, for: device) }
        parameters = [:]
        for plan in plans {
            for (parameter, bytes) in zip(
                plan.parameters, try file.parameters(of: plan, for: device))
            {
                parameters[parameter] = bytes
            }
        }
        description = file.manifest.description
        path = file.path
        text = try TextDescription(file)
        deviceCode = file.deviceCode
    }

    /// Opens and verifies an engine file for the device at hand, re-targeting it where that is due
    /// and allowed.
    ///
    /// Other activations than it was built with are planned in memory, over the weights as they are
    /// packed in the file.
    ///
    /// - Throws: `MartletError` for a damaged file, or one without plans for the device.
    package static func open(_ path: String, options: LoadOptions) throws -> LoadedEngine {
        let file = try EngineFileReader.open(path)
        let target = options.catalogs.device.target
        let built = file.manifest.description.precision.activations
        if file.serves(EngineTarget(target)) {
            if options.activations ?? built == built {
                return try LoadedEngine(file, for: EngineTarget(target))
            }
        } else if options.retarget == .never {
            return try LoadedEngine(file, for: EngineTarget(target))
        } else {
            options.onWarning?(
                "\(path) was built for \(file.manifest.targets.joined(separator: ", ")), not for "
                    + "\(target): re-targeting it in memory; to keep the result: martlet build "
                    + "\(path) --target \(target) --output NEW.martlet")
        }
        return try EngineDraft(
            retargeting: file, to: [options.catalogs.device], options: options
        ).inMemory()
    }
}
