// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph

extension RuleFamily {
    /// Linears take up the norm before and the addition after them, where a device has such kernels.
    ///
    /// Applied to a device's copy, never to the graph that an engine keeps.
    package static let deviceFusion = RuleFamily(
        "device-fusion",
        [
            addNorm(.any("x"), .op("linear", as: "linear")),
            addNorm(.op("linear", as: "linear"), .any("x")),
            add(.any("x"), .op("linear", as: "linear")),
            add(.op("linear", as: "linear"), .any("x")),
            normLinear, gated,
        ])

    private static func isAlone(_ match: Match, _ graph: Graph) -> Bool {
        graph.useCount(of: match.node("linear").value()) == 1
    }

    private static func sum(_ match: Match, _ graph: inout Graph) throws -> ValueID {
        let linear = match.node("linear")
        let bias = linear.operands.count > 2 ? linear.operands[2] : nil
        return try graph.insert(
            "linearAdd", [linear.operands[0], linear.operands[1], match.value("x"), bias],
            linear.attributes, path: linear.path, before: match.root.id)[0]
    }

    private static func addNorm(_ first: Pattern, _ second: Pattern) -> RewriteRule {
        RewriteRule(
            "linear-add-norm", "norm(x + linear(y)): the sum leaves the linear, the norm follows",
            deviceOp: "linearAdd",
            pattern: .op("addNorm", first, second, as: "norm"),
            where: { match, graph in
                isAlone(match, graph) && match.root.attributes["format"] == nil
            }
        ) { match, graph in
            let sum = try sum(match, &graph)
            let normed = try graph.insert(
                "norm", [sum] + match.root.operands.dropFirst(2), match.root.attributes,
                path: match.root.path, before: match.root.id)[0]
            return [sum, normed]
        }
    }

    private static func add(_ first: Pattern, _ second: Pattern) -> RewriteRule {
        RewriteRule(
            "linear-add", "x + linear(y) in one pass",
            deviceOp: "linearAdd",
            pattern: .op("add", first, second, as: "add"), where: { isAlone($0, $1) }
        ) { match, graph in [try sum(match, &graph)] }
    }

    private static let normLinear = RewriteRule(
        "norm-linear", "linear(norm(x)): rows are normalized where they are read",
        deviceOp: "normLinear",
        pattern: .op("linear", .op("norm", .any("x"), as: "norm"), as: "linear"),
        where: { match, graph in
            let norm = match.node("norm")
            return graph.useCount(of: norm.value()) == 1 && norm.attributes["kind"] == "rms"
                && norm.attributes["format"] == nil && norm.operands.count > 1
                && norm.operands[1] != nil && (norm.operands.count < 3 || norm.operands[2] == nil)
        }
    ) { match, graph in
        let (norm, linear) = (match.node("norm"), match.node("linear"))
        let bias = linear.operands.count > 2 ? linear.operands[2] : nil
        return try graph.insert(
            "normLinear", [norm.operands[0], norm.operands[1], linear.operands[1], bias],
            linear.attributes.merging(norm.attributes) { own, _ in own }, path: linear.path,
            before: linear.id)
    }

    private static let gated = RewriteRule(
        "norm-gated-linear", "act(gate) * up of one merged linear, in its last step",
        deviceOp: "normGatedLinear",
        pattern: .op(
            "gatedActivation",
            .result(0, .op("split", .op("normLinear", as: "linear"), as: "split")), .any("up"),
            as: "gated"),
        where: { match, graph in
            let (linear, split) = (match.node("linear"), match.node("split"))
            let sizes = split.attributes["sizes"]?.ints ?? []
            return match.value("up") == split.value(1) && sizes.count == 2
                && sizes[0] == sizes[1] && graph.useCount(of: linear.value()) == 1
                && graph.useCount(of: split.value(0)) == 1
                && graph.useCount(of: split.value(1)) == 1
                && (linear.operands.count < 4 || linear.operands[3] == nil)
                && match.root.attributes["format"] == nil
        }
    ) { match, graph in
        let linear = match.node("linear")
        var attributes = linear.attributes
        attributes["norm"] = attributes["kind"]
        attributes["kind"] = match.root.attributes["kind"]
        return try graph.insert(
            "normGatedLinear", Array(linear.operands.prefix(3)), attributes, path: match.root.path,
            before: match.root.id)
    }
}
