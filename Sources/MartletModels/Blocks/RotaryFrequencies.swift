// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

public import MartletCore

/// Rotary position frequencies and their long-context scalings.
///
/// Source: Su et al. 2021; LLaMA 3.1's `rope_scaling` as `transformers` computes it.
public struct RotaryFrequencies: Sendable, Hashable {
    /// How frequencies are stretched for long contexts.
    public enum Scaling: Sendable, Hashable {
        /// Not at all.
        case none
        /// All divided by a factor.
        case linear(factor: Double)
        /// LLaMA 3: long waves divided by a factor, short ones kept, a ramp between.
        case llama3(
            factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double,
            originalContext: Int)
        /// Each divided by its own factor, as some files store them.
        case factors([Double])
    }

    /// Elements of a head that are rotated, R.
    public var rotaryDim: Int
    /// Base of the geometric series.
    public var base: Double
    /// Long-context scaling.
    public var scaling: Scaling

    /// Describes the series.
    public init(rotaryDim: Int, base: Double, scaling: Scaling = .none) {
        self.rotaryDim = rotaryDim
        self.base = base
        self.scaling = scaling
    }

    /// Radians per position, `[R/2]`: `base^(-2i/R)`, scaled.
    public func values() -> [Double] {
        let count = rotaryDim / 2
        return (0..<count).map { index in
            let frequency = Power.power(base, -2 * Double(index) / Double(rotaryDim))
            switch scaling {
            case .none: return frequency
            case .linear(let factor): return frequency / factor
            case .factors(let factors):
                return frequency / (index < factors.count ? factors[index] : 1)
            case .llama3(let factor, let low, let high, let original):
                let waveLength = 2 * Double.pi / frequency
                let context = Double(original)
                if waveLength > context / low { return frequency / factor }
                if waveLength < context / high { return frequency }
                let smooth = (context / waveLength - low) / (high - low)
                return (1 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }

    /// The series as a graph constant, f32 `[R/2]`.
    ///
    /// - Throws: Never for a valid `rotaryDim`; the tensor's own shape check otherwise.
    public func tensor() throws -> TensorData {
        let values = values().map(Float.init)
        return try TensorData(values, shape: [values.count])
    }
}
