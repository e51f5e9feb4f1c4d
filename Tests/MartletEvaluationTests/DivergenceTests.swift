// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletEvaluation
import Testing

@Suite struct DivergenceTests {
    @Test func equalPredictionsDoNotDiverge() {
        var divergence = Divergence()
        for token in 0..<3 { divergence.add(base: [1, -2, 3], logits: [1, -2, 3], token: token) }
        #expect(divergence.count == 3)
        #expect(divergence.mean == 0)
        #expect(divergence.percentile(0.99) == 0)
        #expect(divergence.topAgreement == 1)
        #expect(divergence.perplexity == divergence.basePerplexity)
    }

    /// p = (3/4, 1/4) against q = (1/2, 1/2): `3/4 ln(3/2) + 1/4 ln(1/2)`; logits may have any offset.
    @Test(arguments: [Float(0), -700, 700])
    func twoTokensByHand(offset: Float) {
        var divergence = Divergence()
        let ln3: Float = 1.098_612_3
        divergence.add(base: [ln3 + offset, offset], logits: [offset, offset], token: 0)
        #expect(abs(divergence.mean - 0.130_812_035_941) < 2e-5)
        #expect(abs(divergence.perplexity - 2) < 1e-9)
        #expect(abs(divergence.basePerplexity - 4.0 / 3) < 1e-4)
        #expect(abs(divergence.probabilityDifference - 0.25) < 2e-5)
        // Both likeliest tokens are the first one.
        #expect(divergence.topAgreement == 1)
        divergence.add(base: [0, 1], logits: [1, 0], token: 1)
        #expect(divergence.topAgreement == 0.5)
    }

    @Test func percentilesInterpolate() {
        var divergence = Divergence()
        for step in 0..<5 { divergence.add(base: [0, 0], logits: [Float(step), 0], token: 0) }
        let values = divergence.values
        #expect(values == values.sorted())
        #expect(divergence.percentile(0) == values[0])
        #expect(divergence.percentile(0.5) == values[2])
        #expect(divergence.percentile(1) == values[4])
        #expect(abs(divergence.percentile(0.9) - (0.4 * values[3] + 0.6 * values[4])) < 1e-12)
    }
}
