// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletQuantization
import Testing

@Suite struct SchemeTests {
    /// Numbers of roughly normal spread, the same in every run.
    static func matrix(_ rows: Int, _ columns: Int, seed: UInt64 = 1) throws -> TensorData {
        var state = seed
        func unit() -> Float {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float(state >> 40) * 0x1p-24 - 0.5
        }
        let values = (0..<rows * columns).map { _ in unit() + unit() + unit() }
        return try TensorData(values, shape: [rows, columns])
    }

    /// Root of the mean squared error over that of the values.
    static func relativeError(_ a: TensorData, _ b: TensorData) throws -> Double {
        var error = 0.0, power = 0.0
        for (x, y) in zip(try a.floats(), try b.floats()) {
            error += Double(x - y) * Double(x - y)
            power += Double(x) * Double(x)
        }
        return (error / power).squareRoot()
    }

    @Test(arguments: [
        ("int8", 0.009), ("int8:g32", 0.006), ("int8:g128:asym", 0.007), ("int8:g64:zero", 0.007),
        ("int4", 0.13), ("int4:g32", 0.10), ("int4:g64:asym", 0.10), ("int4:g64:zero", 0.11),
        ("int4:channel", 0.16),
    ])
    func roundTripErrorIsBounded(_ name: String, _ limit: Double) throws {
        let tensor = try Self.matrix(37, 384)
        let scheme = try SchemeRegistry.choice(name).scheme(384)
        let coded = try SchemeRegistry.encode(tensor, scheme)
        let decoded = try SchemeRegistry.decode(coded)
        #expect(decoded.shape == tensor.shape)
        let error = try Self.relativeError(tensor, decoded)
        #expect(error < limit && error > limit / 4, "\(name): \(error)")
    }

    @Test func int8PerChannelIsWithinHalfAStep() throws {
        let tensor = try Self.matrix(5, 33)
        let scheme = try #require(QuantizationScheme("int8.channel.f32"))
        let decoded = try SchemeRegistry.decode(SchemeRegistry.encode(tensor, scheme)).floats()
        let values = try tensor.floats()
        for row in 0..<5 {
            let part = row * 33..<row * 33 + 33
            let step = values[part].map(abs).max()! / 127
            for index in part { #expect(abs(values[index] - decoded[index]) <= step * 0.5001) }
        }
    }

    @Test func oddWidthsAndZerosSurvive() throws {
        for name in ["int4.g32.f16", "int4.channel.zero.f32", "int8.g64.min.bf16"] {
            let scheme = try #require(QuantizationScheme(name))
            let zeros = try TensorData([Float](repeating: 0, count: 3 * 45), shape: [3, 45])
            let coded = try SchemeRegistry.encode(zeros, scheme)
            #expect(try SchemeRegistry.decode(coded).floats().allSatisfy { $0 == 0 }, "\(name)")
            let odd = try Self.matrix(3, 45)
            let decoded = try SchemeRegistry.decode(SchemeRegistry.encode(odd, scheme))
            #expect(try Self.relativeError(odd, decoded) < 0.16, "\(name)")
        }
    }

    @Test func defaultsFollowTheWidth() throws {
        #expect(try SchemeRegistry.choice("int8").scheme(100).description == "int8.channel.f32")
        #expect(try SchemeRegistry.choice("int4").scheme(256).description == "int4.g128.f16")
        #expect(try SchemeRegistry.choice("int4").scheme(576).description == "int4.g64.f16")
        #expect(try SchemeRegistry.choice("int4").scheme(96).description == "int4.g32.f16")
        let error = #expect(throws: MartletError.self) {
            try SchemeRegistry.choice("int4:g128").scheme(576)
        }
        #expect(error?.mend?.contains("g64, g32") == true)
        for text in ["", "int3", "int4:g17", "int4:", "int8:none"] {
            #expect(throws: MartletError.self) { try SchemeRegistry.choice(text) }
        }
    }

    @Test(arguments: [Float.nan, .infinity, -.infinity])
    func namesWeightsThatAreNotFinite(_ value: Float) throws {
        var values = try Self.matrix(2, 32).floats()
        values[35] = value
        let tensor = try TensorData(values, shape: [2, 32])
        let error = #expect(throws: MartletError.self) {
            try SchemeRegistry.encode(tensor, SchemeRegistry.choice("int8").scheme(32))
        }
        #expect(error?.message.contains("row 1, column 3") == true)
    }

    @Test(arguments: ["int8.g32.f16", "int4.g32.f16", "int4.g32.min.f16", "int4.g32.zero.f16"])
    func refusesScalesThatDoNotFit(_ name: String) throws {
        let scheme = try #require(QuantizationScheme(name))
        let values = (0..<32).map { Float($0 - 16) * 1e37 }
        let tensor = try TensorData(values, shape: [1, 32])
        #expect(throws: MartletError.self) { try SchemeRegistry.encode(tensor, scheme) }
    }
}
