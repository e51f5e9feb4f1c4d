// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// What a GGUF file says of stretched rotary positions, read as llama.cpp reads it.
enum GGUFRope {
    /// The file's `rope_scaling` as `config.json` would have it; nil for none.
    ///
    /// - Throws: `MartletError` `.unsupported` where two rules meet, or as reading the factors does.
    static func scaling(_ file: GGUFFile, _ architecture: String) throws -> JSONValue? {
        func value(_ key: String) -> GGUFValue? { file.metadata["\(architecture).rope.\(key)"] }
        let factor = value("scaling.factor")?.double ?? value("scale_linear")?.double ?? 0
        // A factor without a type is meant linearly, and 0 means none.
        let type = value("scaling.type")?.string ?? "linear"
        let isScaled = type != "none" && (type != "linear" || factor != 0 && factor != 1)
        // LLaMA 3 files hold the finished divisors of each frequency.
        let name = "rope_freqs.weight"
        guard file.contains(name) else {
            guard isScaled else { return nil }
            return .object(
                JSONObject([
                    ("rope_type", .string(type)), ("factor", .double(factor == 0 ? 1 : factor)),
                ]))
        }
        guard !isScaled, case .plain(let tensor) = try file.weight(name) else {
            throw MartletError(
                .unsupported,
                "\(name) stands beside rope.scaling.type '\(type)' with factor \(factor)",
                mend: "Use a file with one of the two")
        }
        let factors = try tensor.floats().map { JSONValue.double(Double($0)) }
        return .object(JSONObject([("factors", .array(factors))]))
    }
}
