// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletMicrokernels
import MartletBackend
import MartletCore

/// The layout of vectors: the elements as they are, in their own type.
enum VectorLayout {
    static let name = "rows"
}

/// Layouts `panel16.*`: panels of 16 rows, described in `martlet_microkernels.h`.
///
/// Names: `panel16.f32`, `panel16.f16`, `panel16.bf16`; for coded weights the scheme's own name
/// with `u` for `int`, such as `panel16.u4.g64.f16`, `panel16.u4.g32.min.f16`, `panel16.u8.channel.f32`.
enum PanelLayout {
    private static let prefix = "panel16."
    /// Rows of a panel; panels are contiguous and independent of each other.
    static let rowCount = 16

    /// Name of the layout that holds a weight of a format.
    ///
    /// - Throws: `Refusal` where no panel layout holds it.
    static func name(_ format: ElementFormat) throws -> String {
        switch format {
        case .plain(.f32), .plain(.f16), .plain(.bf16): return prefix + format.description
        case .plain(let type): throw Refusal("weights of \(type.rawValue) have no panel layout")
        case .weight(let scheme):
            guard scheme.bits == 4 || scheme.bits == 8 else {
                throw Refusal("\(scheme.bits)-bit codes have no panel layout, only 4 and 8")
            }
            guard [.f32, .f16, .bf16].contains(scheme.scaleType) else {
                throw Refusal("scales of \(scheme.scaleType.rawValue) have no panel layout")
            }
            if case .group(let size) = scheme.group, size <= 0 || size % 32 != 0 {
                throw Refusal("a group of \(size) is no multiple of 32")
            }
            return prefix + "u" + scheme.description.dropFirst(3)
        case .activation, .cache: throw Refusal("\(format) is no weight")
        }
    }

    /// Describes a packed weight without its data.
    ///
    /// - Throws: `Refusal` if layout, format and shape do not fit together.
    static func describe(_ layout: String, _ format: ElementFormat, _ shape: [Int]) throws
        -> martlet_weight
    {
        guard try layout == name(format) else {
            throw Refusal("layout '\(layout)' does not hold \(format)")
        }
        guard shape.count == 2, shape[0] > 0, shape[1] > 0 else {
            throw Refusal("layout '\(layout)' holds matrices, not shape \(shape)")
        }
        var weight = martlet_weight()
        let group: Int
        let kind: martlet_weight_kind
        var zero = MARTLET_ZERO_NONE
        var scaleType = MARTLET_FLOAT_F32
        switch format {
        case .plain(.f16): (kind, group) = (MARTLET_WEIGHT_F16, 0)
        case .plain(.bf16): (kind, group) = (MARTLET_WEIGHT_BF16, 0)
        case .weight(let scheme):
            kind = scheme.bits == 4 ? MARTLET_WEIGHT_U4 : MARTLET_WEIGHT_U8
            group = if case .group(let size) = scheme.group { size } else { 0 }
            zero =
                switch scheme.zero {
                case .none: MARTLET_ZERO_NONE
                case .integer: MARTLET_ZERO_INTEGER
                case .floatMinimum: MARTLET_ZERO_MINIMUM
                }
            scaleType = floatType(scheme.scaleType) ?? MARTLET_FLOAT_F32
        default: (kind, group) = (MARTLET_WEIGHT_F32, 0)
        }
        guard
            martlet_weight_describe(&weight, kind, shape[0], shape[1], group, zero, scaleType) == 1
        else { throw Refusal("shape \(shape) is too large for layout '\(layout)'") }
        return weight
    }

    /// The micro-kernels' name of a stored floating-point type.
    static func floatType(_ type: DType) -> martlet_float_type? {
        switch type {
        case .f32: MARTLET_FLOAT_F32
        case .f16: MARTLET_FLOAT_F16
        case .bf16: MARTLET_FLOAT_BF16
        default: nil
        }
    }
}
