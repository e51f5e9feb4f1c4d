// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCore
import Testing

/// Weights in the order of the matrix instruction's operands.
@Suite struct FragmentLayoutTests {
    private static let catalog = CUDACatalog()

    private static func codes(
        _ scheme: QuantizationScheme, _ n: Int, _ k: Int
    ) throws -> QuantizedTensor {
        var state: UInt64 = 7
        func next() -> UInt8 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 40)
        }
        let groups = (scheme.group == .tensor ? 1 : n) * scheme.groupCount(inputs: k)
        func numbers() throws -> ByteView {
            let values = (0..<groups).map { _ in Float(next()) / 64 + 0.25 }
            return try TensorData(values, shape: [groups]).converted(to: scheme.scaleType).bytes
        }
        let zeros: ByteView =
            switch scheme.zero {
            case .none: ByteView()
            case .integer: ByteView((0..<groups).map { _ in next() & 15 })
            case .floatMinimum: try numbers()
            }
        return try QuantizedTensor(
            scheme: scheme, shape: [n, k],
            codes: ByteView((0..<n * (scheme.bits == 4 ? k / 2 : k)).map { _ in next() }),
            scales: numbers(), zeros: zeros)
    }

    @Test(
        arguments: [
            "int4.g32.min.f16", "int4.g64.f16", "int4.g128.zero.f16", "int8.g32.f16",
            "int8.channel.f32", "int8.channel.zero.bf16", "int4.channel.min.f16", "int8.tensor.f16",
        ],
        ["mma16x16", "mma16x16.paired8", "mma16x16.interleave2", "mma16x16.paired8.interleave132"])
    func codesComeBack(scheme: String, layout: String) throws {
        let scheme = try #require(QuantizationScheme(scheme))
        for (n, k) in [(16, 256), (2, 512), (40, 1024), (70, 384)] {
            let tensor = try Self.codes(scheme, n, k)
            let packed = try Self.catalog.pack(.quantized(tensor), layout: layout)
            let back = try Self.catalog.unpack(
                packed, layout: layout, format: .weight(scheme), shape: [n, k])
            guard case .quantized(let same) = back else {
                Issue.record("a plain weight came back")
                return
            }
            #expect(same.codes.hasSameBytes(as: tensor.codes))
            #expect(same.scales.hasSameBytes(as: tensor.scales))
            #expect(same.zeros.hasSameBytes(as: tensor.zeros))
        }
    }

    @Test(
        arguments: [DType.f16, .bf16],
        ["mma16x16", "mma16x16.paired8", "mma16x16.interleave3", "mma16x16.paired8.interleave1"])
    func numbersComeBack(type: DType, layout: String) throws {
        for (n, k) in [(16, 16), (6, 48), (50, 80)] {
            let tensor = try TensorData(
                dtype: type, shape: [n, k], bytes: ByteView((0..<n * k).map { UInt16($0) }))
            let packed = try Self.catalog.pack(.plain(tensor), layout: layout)
            let back = try Self.catalog.unpack(
                packed, layout: layout, format: .plain(type), shape: [n, k])
            guard case .plain(let same) = back else {
                Issue.record("codes came back")
                return
            }
            #expect(same.bytes.hasSameBytes(as: tensor.bytes))
        }
    }

    /// Lane 4 g + t of a tile begins with (g, 2t), (g, 2t + 1), (g + 8, 2t) of the instruction's operand.
    @Test func lanesHoldTheOperand() throws {
        let (n, k) = (32, 48)
        let tensor = try TensorData(
            dtype: .bf16, shape: [n, k], bytes: ByteView((0..<n * k).map { UInt16($0) }))
        let packed = try Self.catalog.pack(.plain(tensor), layout: "mma16x16")
            .array(of: UInt16.self)
        let (strip, tile, g, t) = (1, 2, 5, 3)
        let start = (strip * 3 + tile) * 256 + (4 * g + t) * 8
        func value(_ row: Int, _ column: Int) -> UInt16 {
            UInt16((strip * 16 + row) * k + tile * 16 + column)
        }
        #expect(
            Array(packed[start..<start + 8]) == [
                value(g, 2 * t), value(g, 2 * t + 1), value(g + 8, 2 * t), value(g + 8, 2 * t + 1),
                value(g, 2 * t + 8), value(g, 2 * t + 9), value(g + 8, 2 * t + 8),
                value(g + 8, 2 * t + 9),
            ])
    }

    /// Nibbles of a 4-bit tile, from the lowest: (g,2t) (g,2t+8) (g+8,2t) (g+8,2t+8), then those of 2t + 1.
    @Test func nibblesHoldTheOperand() throws {
        let scheme = try #require(QuantizationScheme("int4.g64.f16"))
        let tensor = try Self.codes(scheme, 16, 64)
        func code(_ row: Int, _ column: Int) -> UInt32 {
            let pair = tensor.codes.array(of: UInt8.self)[row * 32 + column / 2]
            return UInt32(column % 2 == 0 ? pair & 15 : pair >> 4)
        }
        let packed = try Self.catalog.pack(.quantized(tensor), layout: "mma16x16")
        let words = packed.array(of: UInt32.self)
        let (g, t, tile) = (3, 1, 2)
        let word = words[(4 * g + t) * 4 + tile]
        let columns = [2 * t, 2 * t + 8].map { tile * 16 + $0 }
        let expected = [0, 1].flatMap { e in
            [g, g + 8].flatMap { row in columns.map { code(row, $0 + e) } }
        }
        #expect((0..<8).map { word >> (4 * UInt32($0)) & 15 } == expected)
        // Behind the codes: the scales of rows g and g + 8, side by side.
        let halves = packed.array(of: UInt16.self)
        let scales = tensor.scales.array(of: UInt16.self)
        #expect(halves[256 + 2 * g] == scales[g] && halves[256 + 2 * g + 1] == scales[g + 8])
    }

    /// Two blocks own strips 0 to 2 and 3 to 4: their chunks take turns, then the first one's rest follows.
    @Test func chunksTakeTurns() throws {
        let (n, k) = (80, 128)
        let tensor = try TensorData(
            dtype: .bf16, shape: [n, k], bytes: ByteView((0..<n * k).map { UInt16($0) }))
        func chunks(_ layout: String) throws -> [[UInt16]] {
            let all = try Self.catalog.pack(.plain(tensor), layout: layout).array(of: UInt16.self)
            return stride(from: 0, to: all.count, by: 1024).map { Array(all[$0..<$0 + 1024]) }
        }
        let plain = try chunks("mma16x16")
        let order = [0, 6, 1, 7, 2, 8, 3, 9, 4, 5]
        #expect(try chunks("mma16x16.interleave2") == order.map { plain[$0] })
    }

    /// Names of layouts that there are not.
    @Test(arguments: [
        "mma16x16.interleave0", "mma16x16.interleave", "mma16x16.x", "mma16x16.paired8.",
    ])
    func unknownNames(layout: String) throws {
        #expect(throws: MartletError.self) {
            try Self.catalog.unpack(
                ByteView([UInt8](repeating: 0, count: 512)), layout: layout, format: .plain(.f16),
                shape: [16, 16])
        }
    }

    /// What the layout cannot hold is refused by name.
    @Test(arguments: ["int4.g32.f32", "int8.g48.f16"])
    func refusals(scheme: String) throws {
        let scheme = try #require(QuantizationScheme(scheme))
        let tensor = try Self.codes(scheme, 16, 192)
        #expect(throws: MartletError.self) {
            try Self.catalog.pack(.quantized(tensor), layout: "mma16x16")
        }
        #expect(throws: MartletError.self) {
            try Self.catalog.unpack(
                ByteView([UInt8(0)]), layout: "mma16x16", format: .plain(.f16), shape: [16, 16])
        }
    }
}
