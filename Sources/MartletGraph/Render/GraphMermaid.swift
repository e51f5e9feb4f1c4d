// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension Graph {
    /// The graph as a Mermaid flowchart, which Markdown viewers draw.
    public var mermaid: String { mermaid(foldingLayers: false) }

    /// The graph as a Mermaid flowchart.
    ///
    /// - Parameter foldingLayers: Whether layers of equal structure are drawn once, in a frame
    ///   that says how often they occur.
    public func mermaid(foldingLayers: Bool) -> String {
        let drawing = GraphDrawing(self, foldingLayers: foldingLayers)
        var lines = ["flowchart TD"]
        func statement(_ index: Int) -> String {
            let box = drawing.boxes[index]
            let text = ([box.title] + box.lines).map(Self.mermaidEscaped).joined(separator: "<br/>")
            return switch box.kind {
            case .input, .output: "n\(index)([\"\(text)\"])"
            case .weight: "n\(index)[/\"\(text)\"/]"
            case .operation: "n\(index)[\"\(text)\"]"
            }
        }
        for index in drawing.boxes.indices where drawing.boxes[index].fold == nil {
            lines.append("  " + statement(index))
        }
        for (number, fold) in drawing.folds.enumerated() {
            let title = Self.mermaidEscaped("\(fold.first) ... \(fold.last) x\(fold.count)")
            lines.append("  subgraph fold\(number)[\"\(title)\"]")
            for index in drawing.boxes.indices where drawing.boxes[index].fold == number {
                lines.append("    " + statement(index))
            }
            lines.append("  end")
        }
        for edge in drawing.edges { lines.append("  n\(edge.from) --> n\(edge.to)") }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Characters with a meaning in Mermaid's quoted text, as its entity codes.
    private static func mermaidEscaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", " ", ".", "_", "-", "[", "]", "(", ")", ",", "*",
                "+", "=", ":", "/":
                result.unicodeScalars.append(scalar)
            case "\n", "\r": result += " "
            default: result += scalar.isASCII ? "#\(scalar.value);" : String(Character(scalar))
            }
        }
        return result
    }
}
