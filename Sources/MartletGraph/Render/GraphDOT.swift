// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension Graph {
    /// The graph in the DOT language of Graphviz; `dot -Tpng` draws it.
    public var dot: String { dot(foldingLayers: false) }

    /// The graph in the DOT language of Graphviz.
    ///
    /// - Parameter foldingLayers: Whether layers of equal structure are drawn once, in a frame
    ///   that says how often they occur.
    public func dot(foldingLayers: Bool) -> String {
        let drawing = GraphDrawing(self, foldingLayers: foldingLayers)
        var lines = ["digraph \(Self.dotQuoted([name])) {"]
        lines.append("  node [shape=box, style=filled, fillcolor=white, fontname=Helvetica];")
        func statement(_ index: Int) -> String {
            let box = drawing.boxes[index]
            let look =
                switch box.kind {
                case .input: ", shape=ellipse, fillcolor=honeydew"
                case .weight: ", fillcolor=gray93"
                case .operation: ""
                case .output: ", shape=ellipse, fillcolor=aliceblue"
                }
            return "n\(index) [label=\(Self.dotQuoted([box.title] + box.lines))\(look)];"
        }
        for index in drawing.boxes.indices where drawing.boxes[index].fold == nil {
            lines.append("  " + statement(index))
        }
        for (number, fold) in drawing.folds.enumerated() {
            lines.append("  subgraph cluster_\(number) {")
            lines.append(
                "    label=\(Self.dotQuoted(["\(fold.first) ... \(fold.last) x\(fold.count)"]));")
            for index in drawing.boxes.indices where drawing.boxes[index].fold == number {
                lines.append("    " + statement(index))
            }
            lines.append("  }")
        }
        for edge in drawing.edges { lines.append("  n\(edge.from) -> n\(edge.to);") }
        lines.append("}")
        return lines.joined(separator: "\n") + "\n"
    }

    /// A quoted label of several lines: quotes and backslashes escaped, so nothing is a directive.
    private static func dotQuoted(_ lines: [String]) -> String {
        let escaped = lines.map { line in
            var result = ""
            for scalar in line.unicodeScalars {
                switch scalar {
                case "\"", "\\":
                    result += "\\"
                    result.unicodeScalars.append(scalar)
                case "\n", "\r": result += " "
                default: result.unicodeScalars.append(scalar)
                }
            }
            return result
        }
        return "\"" + escaped.joined(separator: "\\n") + "\""
    }
}
