// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

/// A weight of any layout in device memory, as the plain kernels read it.
struct PlainWeight {
    let codes: UInt64
    let outputs: Int
    let inputs: Int
    /// Bytes that the layout takes.
    let byteCount: Int
    /// Definitions that its kernels take.
    let defines: [String: String]
    private var scales: UInt64 = 0
    private var zeros: UInt64 = 0
    private var groupSize: Int
    private var groupStride = 0
    private var chunkWords = 0
    private var groupBytes = 0

    init(address: UInt64, layout: String, format: ElementFormat, shape: [Int]) throws {
        guard shape.count == 2, shape.allSatisfy({ $0 > 0 && $0 < 1 << 28 }) else {
            throw Refusal("a weight of shape \(shape) is no matrix")
        }
        (outputs, inputs) = (shape[0], shape[1])
        codes = address
        groupSize = inputs
        var defines = try Self.defines(format)
        if let scheme = format.scheme {
            groupSize = scheme.groupSize(inputs: inputs)
            guard groupSize > 0 else { throw Refusal("a group of \(groupSize) inputs") }
        }
        if layout == RowLayout.name {
            if let scheme = format.scheme {
                let parts = try RowLayout.parts(scheme, shape)
                scales = address + UInt64(parts.scales.lowerBound)
                zeros = address + UInt64(parts.zeros.lowerBound)
                groupStride = scheme.group == .tensor ? 0 : scheme.groupCount(inputs: inputs)
                byteCount = parts.byteCount
            } else {
                byteCount = outputs * inputs * (format.dtype?.byteCount ?? 0)
            }
        } else {
            let fragments = try FragmentLayout(layout, format, shape)
            scales = address + UInt64(fragments.scaleStart)
            zeros = address + UInt64(fragments.zeroStart)
            chunkWords = fragments.chunkWords
            if fragments.groupSize > 0 { groupBytes = fragments.hasZeros ? 64 : 32 }
            byteCount = fragments.byteCount
            defines["LAYOUT"] = fragments.isPaired ? "2" : "1"
            defines["INTERLEAVE"] = "\(fragments.interleave)"
        }
        self.defines = defines
    }

    /// Definitions of a weight's format.
    static func defines(_ format: ElementFormat) throws -> [String: String] {
        switch format {
        case .plain(let type) where type.isActivation:
            return ["WEIGHT": DeviceType.define(type), "SCALE": "0", "ZERO": "0"]
        case .weight(let scheme):
            let zero =
                switch scheme.zero {
                case .none: "0"
                case .integer: "1"
                case .floatMinimum: "2"
                }
            return [
                "WEIGHT": scheme.bits == 4 ? "4" : "8",
                "SCALE": DeviceType.define(scheme.scaleType), "ZERO": zero,
            ]
        default: throw Refusal("a weight of \(format) has no kernel")
        }
    }

    /// `PlainWeight`.
    func add(to arguments: inout ArgumentBytes) {
        arguments.add(codes)
        arguments.add(scales)
        arguments.add(zeros)
        for number in [outputs, inputs, groupSize, groupStride, chunkWords, groupBytes] {
            arguments.add(int: number)
        }
    }
}
