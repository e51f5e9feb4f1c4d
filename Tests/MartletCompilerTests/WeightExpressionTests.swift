// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCompiler
import MartletCore
import Testing

@Suite struct WeightExpressionTests {
    static let expressions: [WeightExpression] = [
        .named("a", shape: [3]),
        .named("layers.0.attention.q.weight", shape: [576, 64]),
        .apply("concat", [.named("a", shape: [2, 8]), .named("b", shape: [4, 8])]),
        .apply(
            "concat",
            [
                .apply("normalizeRows", [.named("a", shape: [2, 8])]),
                .apply("transpose", [.named("b", shape: [8, 4])]),
            ]),
        .apply("cast", [.apply("cast", [.named("a", shape: [1, 1])])]),
    ]

    @Test(arguments: expressions)
    func textReadsBack(_ expression: WeightExpression) throws {
        #expect(try WeightExpression(text: expression.description) == expression)
    }

    @Test func shapesAndNames() {
        #expect(Self.expressions.map(\.shape) == [[3], [576, 64], [6, 8], [6, 8], [1, 1]])
        #expect(Self.expressions[3].names == ["a", "b"])
    }

    @Test(arguments: [
        "", " ", "a", "a[", "a]", "a[]", "a[x]", "a[2x]", "a[x2]", "a[2x8", "a[2y8]", "[2]",
        "a[2]b", "a[-1]", "a[0]", "a[2x-8]", "a[99999999999999999999]",
        "concat", "concat(", "concat()", "concat(a[2]", "concat(a[2],", "concat(a[2],)",
        "concat(a[2]))", "(a[2])", "concat(a[2]) b[2]", "concat(a[2] b[2])", ",", ")",
    ])
    func refusesDamagedText(_ text: String) {
        let error = #expect(throws: MartletError.self) { try WeightExpression(text: text) }
        #expect(error?.code == .corrupt)
    }

    @Test func refusesDeepText() throws {
        let deep =
            String(repeating: "cast(", count: 60) + "a[2]" + String(repeating: ")", count: 60)
        _ = try WeightExpression(text: deep)
        let deeper = String(repeating: "cast(", count: 100_000)
        #expect(throws: MartletError.self) { try WeightExpression(text: deeper) }
    }

    @Test func everyCutOfTextIsRefused() throws {
        let text = Self.expressions[3].description
        for count in 0..<text.count {
            #expect(throws: MartletError.self) {
                try WeightExpression(text: String(text.prefix(count)))
            }
        }
    }
}
