// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletModels
import Testing

/// Frequencies of each kind against those of transformers (scripts/make-golden.py).
@Suite struct RotaryFrequenciesTests {
    @Test(arguments: 0..<11)
    func equalTransformers(_ index: Int) throws {
        let cases = try JSONValue.parse(MappedFile.map(Fixture.path("rotary.json")))
        #expect(cases.array?.count == 11)
        let config = try #require(cases[index]?["configuration"]?.object)
        let expected = try #require(cases[index]?["frequencies"]?.array).compactMap(\.double)
        let reader = ConfigurationReader(config, origin: "case \(index)")
        let values = try RotaryFrequencies(reader, headDim: reader.int("head_dim")).values()
        #expect(values.count == expected.count && !values.isEmpty)
        for (value, wanted) in zip(values, expected) {
            // Theirs are made in f32: a power, a division, a blend.
            #expect(abs(value - wanted) <= 1e-6 * wanted)
        }
    }

    @Test func factorsDivideEach() throws {
        var frequencies = RotaryFrequencies(rotaryDim: 4, base: 100)
        #expect(frequencies.values() == [1, 0.1])
        frequencies.scaling = .factors([2, 4])
        #expect(frequencies.values() == [0.5, 0.025])
        frequencies.scaling = .linear(factor: 4)
        #expect(frequencies.values() == [0.25, 0.025])
        #expect(try frequencies.tensor().floats() == [0.25, 0.025])
    }

    @Test func factorsMustBeOnePerPair() throws {
        func read(_ factors: [JSONValue]) throws -> RotaryFrequencies {
            let scaling = JSONObject([("factors", .array(factors))])
            return try RotaryFrequencies(
                ConfigurationReader(
                    JSONObject([("rope_scaling", .object(scaling))]), origin: "config.json"),
                headDim: 4)
        }
        #expect(try read([1, 2]).scaling == .factors([1, 2]))
        #expect(throws: MartletError.self) { try read([1]) }
        #expect(throws: MartletError.self) { try read([1, -2]) }
        #expect(throws: MartletError.self) { try read([1, "x"]) }
    }
}
