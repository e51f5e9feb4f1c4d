// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Keys and values of one request: per KV group and layer a contiguous, growing array of rows.
///
/// Groups are found by name, so that a state goes from one entry point's graph to another's.
///
/// Row p belongs to position p: `kvHeadCount * headDim` numbers, rounded to the group's KV type.
package struct ReferenceState: Sendable {
    struct Layer: Sendable {
        var keys: [Float] = []
        var values: [Float] = []
    }

    private var layers: [String: [Int: Layer]] = [:]

    /// An empty cache.
    package init() {}

    /// Keys of a layer: `[positions, kvHeadCount * headDim]`; empty if nothing was written there.
    package func keys(group: String = KVGroup.defaultName, layer: Int) -> [Float] {
        self[group, layer].keys
    }

    /// Values of a layer, as `keys`.
    package func values(group: String = KVGroup.defaultName, layer: Int) -> [Float] {
        self[group, layer].values
    }

    subscript(group: String, layer: Int) -> Layer { layers[group]?[layer] ?? Layer() }

    /// Stores rows from a position on; rows that were there are replaced, later ones forgotten.
    ///
    /// - Throws: `MartletError` `.shapeMismatch` if rows before `start` were never written,
    ///   `.unsupported` for KV types other than f32, f16 and bf16.
    mutating func write(
        keys: ArraySlice<Float>, values: ArraySlice<Float>, group: KVGroup, layer: Int, start: Int
    ) throws {
        var stored = self[group.name, layer]
        let kept = start * group.kvHeadCount * group.headDim
        guard stored.keys.count >= kept else {
            throw MartletError(
                .shapeMismatch, "position \(start) is written before the positions that precede it")
        }
        let dtype = group.scheme.dtype
        stored.keys.removeLast(stored.keys.count - kept)
        stored.values.removeLast(stored.values.count - kept)
        stored.keys += try ReferenceValue.round(Array(keys), to: dtype)
        stored.values += try ReferenceValue.round(Array(values), to: dtype)
        layers[group.name, default: [:]][layer] = stored
    }
}

/// One request's part of a step.
package struct ReferenceRequest: Sendable {
    /// Token ids of the step, in order.
    package var tokens: [Int32]
    /// Position of the first of them.
    package var start: Int
    /// Which of the tokens get logits: indices into `tokens`, ascending.
    package var logitRows: [Int]
    /// Keys and values of earlier positions; the step adds its own.
    package var state: ReferenceState

    /// Describes a part of a step; see the properties.
    ///
    /// - Parameter logitRows: nil for the last token only.
    package init(
        tokens: [Int32], start: Int = 0, logitRows: [Int]? = nil, state: ReferenceState
    ) {
        self.tokens = tokens
        self.start = start
        self.logitRows = logitRows ?? (tokens.isEmpty ? [] : [tokens.count - 1])
        self.state = state
    }
}
