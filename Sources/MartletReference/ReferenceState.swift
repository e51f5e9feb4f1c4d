// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// Keys and values of one request: per KV group and layer a contiguous, growing array of rows.
///
/// Row p belongs to position p: `kvHeadCount * headDim` numbers, rounded to the group's KV type.
package struct ReferenceState: Sendable {
    struct Layer: Sendable {
        var keys: [Float] = []
        var values: [Float] = []
    }

    private let groups: [KVGroup]
    private var layers: [[Layer]]

    /// An empty cache for a graph's KV groups.
    package init(groups: [KVGroup]) {
        self.groups = groups
        layers = groups.map { Array(repeating: Layer(), count: max($0.layerCount, 0)) }
    }

    /// Keys of a layer: `[positions, kvHeadCount * headDim]`; empty if there is no such layer.
    package func keys(group: Int, layer: Int) -> [Float] { self[group, layer]?.keys ?? [] }

    /// Values of a layer, as `keys`.
    package func values(group: Int, layer: Int) -> [Float] { self[group, layer]?.values ?? [] }

    subscript(group: Int, layer: Int) -> Layer? {
        guard layers.indices.contains(group), layers[group].indices.contains(layer) else {
            return nil
        }
        return layers[group][layer]
    }

    /// Stores rows from a position on; rows that were there are replaced, later ones forgotten.
    ///
    /// - Throws: `MartletError` `.shapeMismatch` if the layer does not exist or rows before `start`
    ///   were never written, `.unsupported` for KV types other than f32, f16 and bf16.
    mutating func write(
        keys: ArraySlice<Float>, values: ArraySlice<Float>, group: Int, layer: Int, start: Int
    ) throws {
        guard var stored = self[group, layer] else {
            throw MartletError(.shapeMismatch, "there is no layer \(layer) in KV group \(group)")
        }
        let kept = start * groups[group].kvHeadCount * groups[group].headDim
        guard stored.keys.count >= kept else {
            throw MartletError(
                .shapeMismatch, "position \(start) is written before the positions that precede it")
        }
        let dtype = groups[group].scheme.dtype
        stored.keys.removeLast(stored.keys.count - kept)
        stored.values.removeLast(stored.values.count - kept)
        stored.keys += try ReferenceValue.round(Array(keys), to: dtype)
        stored.values += try ReferenceValue.round(Array(values), to: dtype)
        layers[group][layer] = stored
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
