// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension Graph {
    /// The graph as an SVG picture, which browsers show.
    public var svg: String { svg(foldingLayers: false) }

    /// The graph as an SVG picture: ranks from top to bottom, each box with op, path and types.
    ///
    /// - Parameter foldingLayers: Whether layers of equal structure are drawn once, marked with
    ///   how often they occur.
    public func svg(foldingLayers: Bool) -> String {
        let drawing = GraphDrawing(self, foldingLayers: foldingLayers)
        let notes = drawing.folds.map { "\($0.first) ... \($0.last): shown once, x\($0.count)" }
        let layout = LayeredLayout(
            sizes: drawing.boxes.map { box in
                let length = ([box.title] + box.lines).map(\.unicodeScalars.count).max() ?? 0
                return (width: Double(length) * 6.7 + 20, height: Double(box.lines.count) * 15 + 26)
            },
            edges: drawing.edges)
        let top = 40 + Double(notes.count) * 16
        let width = max(layout.width, Double(notes.map(\.count).max() ?? 0) * 6.7) + 40
        let height = layout.height + top + 20
        var lines = [
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(Self.number(width))\" "
                + "height=\"\(Self.number(height))\" font-family=\"monospace\" font-size=\"11\">",
            "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>",
            "<text x=\"20\" y=\"24\" font-size=\"14\">\(Self.xmlEscaped(name))</text>",
        ]
        for (index, note) in notes.enumerated() {
            let y = Self.number(42 + Double(index) * 16)
            lines.append(
                "<text x=\"20\" y=\"\(y)\" fill=\"#555555\">\(Self.xmlEscaped(note))</text>")
        }
        lines.append("<g transform=\"translate(20 \(Self.number(top)))\">")
        for route in layout.routes { lines.append(Self.path(route)) }
        for (box, frame) in zip(drawing.boxes, layout.frames) {
            lines += Self.box(box, frame, fold: box.fold.map { drawing.folds[$0] })
        }
        lines += ["</g>", "</svg>"]
        return lines.joined(separator: "\n") + "\n"
    }

    private static func box(
        _ box: GraphDrawing.Box, _ frame: LayeredLayout.Frame, fold: GraphDrawing.Fold?
    ) -> [String] {
        let fill =
            switch box.kind {
            case .input: "#eaf7ea"
            case .weight: "#eeeeee"
            case .operation: "#fdf6e3"
            case .output: "#e6f0fa"
            }
        let left = frame.x - frame.width / 2
        let title = xmlEscaped(box.title + (fold.map { " (x\($0.count))" } ?? ""))
        var lines = ["<g>"]
        if !box.note.isEmpty { lines.append("<title>\(xmlEscaped(box.note))</title>") }
        lines.append(
            "<rect x=\"\(number(left))\" y=\"\(number(frame.y))\" width=\"\(number(frame.width))\" "
                + "height=\"\(number(frame.height))\" rx=\"4\" fill=\"\(fill)\" stroke=\"#888888\"/>"
        )
        let x = number(frame.x)
        lines.append(
            "<text x=\"\(x)\" y=\"\(number(frame.y + 17))\" text-anchor=\"middle\" "
                + "font-weight=\"bold\">\(title)</text>")
        for (index, line) in box.lines.enumerated() {
            let y = number(frame.y + 32 + Double(index) * 15)
            lines.append(
                "<text x=\"\(x)\" y=\"\(y)\" text-anchor=\"middle\">\(xmlEscaped(line))</text>")
        }
        return lines + ["</g>"]
    }

    /// A smooth line through points, upright at each.
    private static func path(_ points: [LayeredLayout.Point]) -> String {
        guard let first = points.first else { return "" }
        var text = "M\(number(first.x)) \(number(first.y))"
        for (a, b) in zip(points, points.dropFirst()) {
            let middle = number((a.y + b.y) / 2)
            text += " C\(number(a.x)) \(middle) \(number(b.x)) \(middle) "
            text += "\(number(b.x)) \(number(b.y))"
        }
        return "<path d=\"\(text)\" fill=\"none\" stroke=\"#666666\"/>"
    }

    /// One decimal, without locale.
    private static func number(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        let sign = tenths < 0 ? "-" : ""
        return "\(sign)\(tenths.magnitude / 10).\(tenths.magnitude % 10)"
    }

    /// Text as XML character data or an attribute value; characters XML forbids become U+FFFD.
    private static func xmlEscaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x26: result += "&amp;"
            case 0x3c: result += "&lt;"
            case 0x3e: result += "&gt;"
            case 0x22: result += "&quot;"
            case 0x27: result += "&#39;"
            case 0x9, 0xa, 0xd: result += " "
            case 0..<0x20, 0xfffe, 0xffff: result += "\u{fffd}"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}
