// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCPU
import MartletCore
import Testing

/// A random coded weight.
func randomWeight(_ scheme: QuantizationScheme, _ n: Int, _ k: Int, seed: UInt64) throws
    -> QuantizedTensor
{
    var random = SeededRandom(seed)
    let codeBytes = n * (scheme.bits == 4 ? (k + 1) / 2 : k)
    var codes = (0..<codeBytes).map { _ in UInt8.random(in: 0...255, using: &random) }
    if scheme.bits == 4, k % 2 == 1 {
        // The unused nibble of an odd row is 0.
        for row in 0..<n { codes[(row + 1) * ((k + 1) / 2) - 1] &= 15 }
    }
    let groups = (scheme.group == .tensor ? 1 : n) * scheme.groupCount(inputs: k)
    func stored(_ values: [Float]) throws -> ByteView {
        try TensorData(values, shape: [values.count]).converted(to: scheme.scaleType).bytes
    }
    let scales = (0..<groups).map { _ in Float.random(in: 0.001...0.02, using: &random) }
    let zeros: ByteView =
        switch scheme.zero {
        case .none: ByteView()
        case .integer:
            ByteView(
                (0..<groups).map { _ in
                    UInt8.random(in: 0...UInt8((1 << scheme.bits) - 1), using: &random)
                })
        case .floatMinimum: try stored(random.floats(groups, scale: 0.2))
        }
    return try QuantizedTensor(
        scheme: scheme, shape: [n, k], codes: ByteView(codes), scales: try stored(scales),
        zeros: zeros)
}

/// All schemes that panels hold.
let allSchemes: [QuantizationScheme] = [4, 8].flatMap { bits in
    [.tensor, .channel, .group(32), .group(64), .group(128)].flatMap { group in
        [DType.f32, .f16, .bf16].flatMap { type in
            [.none, .integer, .floatMinimum].map {
                QuantizationScheme(bits: bits, group: group, scaleType: type, zero: $0)
            }
        }
    }
}

func layout(_ scheme: QuantizationScheme) -> String {
    "panel16.u" + scheme.description.dropFirst(3)
}

@Suite struct PackingTests {
    @Test(arguments: allSchemes)
    func unpackInvertsPack(scheme: QuantizationScheme) throws {
        for (n, k) in [(1, 1), (16, 64), (17, 96), (33, 130), (5, 191)] {
            let weight = try randomWeight(scheme, n, k, seed: UInt64(n * 1000 + k))
            let packed = try CPUCatalog().pack(.quantized(weight), layout: layout(scheme))
            let back = try CPUCatalog().unpack(
                packed, layout: layout(scheme), format: .weight(scheme), shape: [n, k])
            guard case .quantized(let tensor) = back else { throw Missing() }
            #expect(tensor.codes.hasSameBytes(as: weight.codes), "codes of \(n) x \(k)")
            #expect(tensor.scales.hasSameBytes(as: weight.scales), "scales of \(n) x \(k)")
            #expect(tensor.zeros.hasSameBytes(as: weight.zeros), "zeros of \(n) x \(k)")
        }
    }

    @Test(arguments: [DType.f32, .f16, .bf16], [[1, 1], [17, 33], [700, 900]])
    func unpackInvertsPackOfPlainWeights(type: DType, shape: [Int]) throws {
        var random = SeededRandom(7)
        let tensor = try TensorData(random.floats(shape[0] * shape[1]), shape: shape)
            .converted(to: type)
        let name = "panel16.\(type.rawValue)"
        let packed = try CPUCatalog().pack(.plain(tensor), layout: name)
        let back = try CPUCatalog().unpack(
            packed, layout: name, format: .plain(type), shape: shape)
        guard case .plain(let found) = back else { throw Missing() }
        #expect(found.bytes.hasSameBytes(as: tensor.bytes))
    }

    @Test func refusesWhatDoesNotFit() throws {
        let weight = try randomWeight(
            QuantizationScheme(bits: 4, group: .group(64), scaleType: .f16), 16, 64, seed: 1)
        #expect(throws: MartletError.self) {
            try CPUCatalog().pack(.quantized(weight), layout: "panel16.u8.g64.f16")
        }
        let name = layout(weight.scheme)
        let packed = try CPUCatalog().pack(.quantized(weight), layout: name)
        let short = try expect(packed.slice(0, count: packed.count - 1))
        #expect(throws: MartletError.self) {
            try CPUCatalog().unpack(
                short, layout: name, format: .weight(weight.scheme), shape: [16, 64])
        }
        let narrow = QuantizationScheme(bits: 4, group: .group(16), scaleType: .f16)
        #expect(throws: MartletError.self) {
            try CPUCatalog().pack(
                .quantized(randomWeight(narrow, 16, 64, seed: 1)), layout: layout(narrow))
        }
    }
}
