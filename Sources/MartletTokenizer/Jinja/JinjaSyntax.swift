// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// An expression of a template.
indirect enum JinjaExpression: Sendable {
    case none
    case bool(Bool)
    case int(Int)
    case float(Double)
    case string(String)
    case name(String)
    case list([JinjaExpression])
    case tuple([JinjaExpression])
    case dict([(key: JinjaExpression, value: JinjaExpression)])
    /// `-` or `+` before an operand.
    case sign(isMinus: Bool, operand: JinjaExpression)
    case not(JinjaExpression)
    case and(JinjaExpression, JinjaExpression)
    case or(JinjaExpression, JinjaExpression)
    case arithmetic(String, JinjaExpression, JinjaExpression)
    case concat([JinjaExpression])
    case compare(JinjaExpression, [(symbol: String, operand: JinjaExpression)])
    case condition(test: JinjaExpression, value: JinjaExpression, otherwise: JinjaExpression?)
    case attribute(JinjaExpression, String)
    case subscripted(JinjaExpression, JinjaExpression)
    case slice(
        JinjaExpression, start: JinjaExpression?, stop: JinjaExpression?, step: JinjaExpression?)
    case call(JinjaExpression, JinjaCallSyntax)
    case filter(JinjaExpression, String, JinjaCallSyntax)
    case test(JinjaExpression, String, JinjaCallSyntax)
    /// The text a block of the template made: the operand of filters on blocks.
    case blockText
}

/// Arguments as written.
struct JinjaCallSyntax: Sendable {
    var positional: [JinjaExpression] = []
    var named: [(name: String, value: JinjaExpression)] = []
}

/// What is assigned to.
indirect enum JinjaTarget: Sendable {
    case name(String)
    case attribute(namespace: String, String)
    case tuple([JinjaTarget])
}

/// A macro or the body of a `call` block.
struct JinjaMacro: Sendable {
    var name: String
    var parameters: [(name: String, fallback: JinjaExpression?)]
    var body: [JinjaStatement]
    /// Which of `caller`, `varargs` and `kwargs` the body reads: only those it is given.
    var specials: Set<String>

    /// Names that a macro sees without having them as parameters.
    static let specialNames: Set<String> = ["caller", "varargs", "kwargs"]
}

/// A statement with its line.
struct JinjaStatement: Sendable {
    /// What a statement does.
    indirect enum Kind: Sendable {
        case text(JinjaText)
        case output(JinjaExpression)
        case branch([(test: JinjaExpression, body: [JinjaStatement])], otherwise: [JinjaStatement])
        case loop(
            JinjaTarget, JinjaExpression, where: JinjaExpression?, body: [JinjaStatement],
            otherwise: [JinjaStatement])
        case set(JinjaTarget, JinjaExpression)
        case setBlock(JinjaTarget, JinjaExpression, body: [JinjaStatement])
        case macro(JinjaMacro)
        case callBlock(JinjaExpression, JinjaMacro)
        case filterBlock(JinjaExpression, body: [JinjaStatement])
        case group([JinjaStatement])
        case with([(target: JinjaTarget, value: JinjaExpression)], body: [JinjaStatement])
        case breakLoop
        case continueLoop
    }

    var kind: Kind
    var line: Int
}
