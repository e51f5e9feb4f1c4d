// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletQuantization
import Testing

/// Codes, scales and zeros that numpy computed in float32 for one row of 64 numbers.
///
/// With `x` a group, `s` its scale and `rint` rounding half to even: int8 symmetric
/// `s = max|x| / 127`, `rint(x * (1 / s)) + 128`; int4 minimum `s = f16((max - min) / 15)`,
/// `z = f16(min)`, `rint((x - z) * (1 / s))`; int4 zero with min and max widened to hold 0,
/// `z = rint(-min * (1 / s))`, `rint(x * (1 / s) + z)`; int4 codes clipped to 0 ... 15.
@Suite struct GoldenCodeTests {
    struct Golden: Sendable {
        let scheme: String
        let codes: [UInt8]
        let scales: [Float]
        let zeros: [Float]
    }

    /// `((37 k + 11) mod 64) / 16 - 1.7`, times 0.3 from k = 32 on.
    static let row: [Float] = (0..<64).map { k in
        (Float((37 * k + 11) % 64) / 16 - 1.7) * (k < 32 ? 1 : 0.3)
    }

    static let goldens = [
        Golden(
            scheme: "int8.channel.f32",
            codes: [
                67, 206, 105, 244, 142, 41, 180, 78, 217, 116, 255, 154, 52, 191, 90, 229, 127, 26,
                165, 63, 202, 101, 240, 139, 37, 176, 75, 214, 112, 251, 150, 48, 146, 115, 157,
                127, 168, 138, 107, 149, 119, 160, 130, 100, 141, 111, 153, 122, 164, 133, 103,
                145, 114, 156, 126, 167, 137, 106, 148, 118, 159, 129, 98, 140,
            ], scales: [0.016633857041597366], zeros: []),
        Golden(
            scheme: "int4.g32.min.f16",
            codes: [
                3, 12, 5, 14, 8, 1, 10, 3, 13, 6, 15, 8, 2, 11, 4, 13, 7, 0, 9, 2, 12, 5, 14, 7, 1,
                10, 3, 12, 6, 15, 8, 1, 10, 4, 13, 6, 15, 8, 2, 11, 4, 13, 7, 0, 9, 3, 12, 5, 14,
                7, 1, 10, 3, 12, 6, 15, 8, 2, 11, 4, 13, 7, 0, 9,
            ], scales: [0.254150390625, 0.0775146484375],
            zeros: [-1.7001953125, -0.4912109375]),
        Golden(
            scheme: "int4.g32.zero.f16",
            codes: [
                3, 12, 5, 15, 8, 1, 10, 4, 13, 6, 15, 9, 2, 11, 4, 14, 7, 0, 9, 3, 12, 5, 14, 8, 1,
                10, 4, 13, 6, 15, 8, 2, 10, 3, 12, 6, 15, 8, 2, 11, 4, 13, 6, 0, 9, 2, 11, 5, 14,
                7, 1, 10, 3, 12, 5, 14, 8, 1, 10, 4, 13, 6, 0, 9,
            ], scales: [0.254150390625, 0.0775146484375], zeros: [7.0, 6.0]),
    ]

    @Test(arguments: goldens)
    func codesEqualNumpy(_ golden: Golden) throws {
        let scheme = try #require(QuantizationScheme(golden.scheme))
        let coded = try SchemeRegistry.encode(TensorData(Self.row, shape: [1, 64]), scheme)
        let bytes = coded.codes.array(of: UInt8.self)
        let codes = scheme.bits == 8 ? bytes : bytes.flatMap { [$0 & 15, $0 >> 4] }
        #expect(codes == golden.codes)
        func floats(_ view: ByteView, _ type: DType) throws -> [Float] {
            try TensorData(dtype: type, shape: [view.count / type.byteCount], bytes: view).floats()
        }
        #expect(try floats(coded.scales, scheme.scaleType) == golden.scales)
        let zeroType = scheme.zero == .integer ? DType.u8 : scheme.scaleType
        #expect(try floats(coded.zeros, zeroType) == golden.zeros)
    }
}
