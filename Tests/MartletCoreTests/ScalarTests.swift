// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

struct ScalarTests {
    @Test func halfRoundTripsEveryBitPattern() {
        for bits in UInt16.min...UInt16.max {
            let value = Half.float(bits: bits)
            if value.isNaN { continue }
            #expect(Half.bits(value) == bits)
        }
    }

    @Test(
        arguments: [
            (65519.0, 0x7bff), (65520.0, 0x7c00), (0x1p-24, 1), (0x1p-25, 0), (0x1.8p-24, 2),
            (1.00048828125, 0x3c00), (-2.0, 0xc000),
        ] as [(Float, UInt16)])
    func halfRoundsToNearestEven(value: Float, bits: UInt16) { #expect(Half.bits(value) == bits) }

    @Test(arguments: [(1.0, 0x3f80), (0x1.01p0, 0x3f80), (0x1.03p0, 0x3f82)] as [(Float, UInt16)])
    func bfloat16RoundsToNearestEven(value: Float, bits: UInt16) {
        #expect(BFloat16(value).bitPattern == bits)
    }

    @Test func crcMatchesThePublishedCheckValue() {
        #expect(Array("123456789".utf8).withUnsafeBytes { CRC32C.checksum($0) } == 0xe306_9283)
    }

    @Test(arguments: ["T", "576", "2*T+64", "3*B+O", "L"])
    func dimensionTextRoundTrips(text: String) {
        #expect(Dimension(text)?.description == text)
    }

    @Test(arguments: ["", "x", "2*", "T*T", "1*2", "+"])
    func dimensionRefusesOtherText(text: String) { #expect(Dimension(text) == nil) }

    @Test(arguments: [
        "int4.g32.min.f16", "int8.channel.f32", "int4.g128.zero.f16", "int8.tensor.f32",
    ])
    func schemeTextRoundTrips(text: String) {
        #expect(QuantizationScheme(text)?.description == text)
    }
}
