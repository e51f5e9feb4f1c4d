// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCPU
import MartletCompiler
import MartletCore
import MartletModels
import MartletQuantization
import Testing

/// Weights made a few rows at a time are those made at once.
@Suite struct WeightPiecesTests {
    /// Values of some weights as a checkpoint may store them.
    private struct Stored: WeightProvider {
        let scheme: QuantizationScheme?

        func storage(of name: String, shape: [Int]) -> ElementFormat {
            scheme.map { .weight($0) } ?? .plain(.f32)
        }
        func weight(_ name: String, shape: [Int]) throws -> WeightValue {
            let value = try RandomWeights(seed: 5).weight(name, shape: shape)
            guard let scheme, case .plain(let tensor) = value else { return value }
            return .quantized(try SchemeRegistry.encode(tensor, scheme))
        }
    }

    private func bytes(_ value: WeightValue) -> [ByteView] {
        switch value {
        case .plain(let tensor): [tensor.bytes]
        case .quantized(let tensor): [tensor.codes, tensor.scales, tensor.zeros]
        }
    }

    @Test(
        arguments: [
            "a[70x64]", "concat(a[70x64], b[7x64], c[33x64])",
            "concat(a[5x64], normalizeRows(b[41x64]))", "normalizeRows(a[50x64])",
            "transpose(a[64x48])", "concat(concat(a[3x64], b[3x64]), c[20x64])",
        ],
        [
            "f32", "bf16", "int8.channel.f32", "int4.g32.f16", "int4.g64.min.f16",
            "int8.g32.zero.f16",
        ]
    )
    func piecesJoinedAreTheWhole(source: String, format: String) throws {
        let expression = try WeightExpression(text: source)
        let format = try #require(ElementFormat(format))
        let catalog = CPUCatalog()
        let panel = "panel16." + format.description.replacing("int", with: "u")
        let request = ParameterRequest(
            name: "w", expression: expression, format: format, shape: expression.shape,
            layout: panel)
        for stored in [nil, QuantizationScheme("int4.g32.min.f16")] {
            let weights = Stored(scheme: stored)
            let whole = try Compiler.materialize(request, constants: [:], weights: weights)
            let packed = try catalog.pack(whole, layout: panel)
            #expect(
                packed.count
                    == catalog.packedByteCount(
                        layout: panel, format: format, shape: expression.shape))
            for elements in [1, 3000, 1 << 20] {
                var values: [WeightValue] = []
                try Compiler.materialize(
                    request, constants: [:], weights: weights,
                    rowUnit: catalog.packedRowUnit(layout: panel), pieceElements: elements
                ) { values.append($0) }
                #expect(values.dropLast().allSatisfy { $0.shape[0] % 16 == 0 })
                #expect(elements != 1 || values.count > 1)
                let joined = try WeightValue.concatenateRows(values)
                #expect(joined.shape == whole.shape)
                for (a, b) in zip(bytes(joined), bytes(whole)) { #expect(a.hasSameBytes(as: b)) }
                let pieces = try values.map { try catalog.pack($0, layout: panel) }
                #expect(ByteView(joining: pieces).hasSameBytes(as: packed))
            }
        }
    }

    @Test func aBadWeightIsNamedByItsRow() throws {
        struct Broken: WeightProvider {
            func storage(of name: String, shape: [Int]) -> ElementFormat { .plain(.f32) }
            func weight(_ name: String, shape: [Int]) throws -> WeightValue {
                var values = [Float](repeating: 1, count: shape[0] * shape[1])
                values[37 * shape[1] + 2] = .nan
                return .plain(try TensorData(values, shape: shape))
            }
        }
        let format = try #require(ElementFormat("int8.channel.f32"))
        let request = ParameterRequest(
            name: "w", expression: .named("w", shape: [64, 32]), format: format, shape: [64, 32],
            layout: "panel16.u8.channel.f32")
        let error = #expect(throws: MartletError.self) {
            try Compiler.materialize(
                request, constants: [:], weights: Broken(), rowUnit: 16, pieceElements: 1
            ) { _ in }
        }
        #expect(error?.message.contains("row 37, column 2") == true, "\(String(describing: error))")
    }
}
