// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A comparison as bars: one panel each for latency, rate and memory.
struct ComparisonChart {
    private let title: String
    private let comparison: BenchComparison

    init(title: String, _ comparison: BenchComparison) {
        self.title = title
        self.comparison = comparison
    }

    /// A panel: the column it shows, and what it is called.
    private static let panels = [
        ("latency ms", "latency, ms"), ("tokens/s", "output, tokens/s"),
        ("peak MB", "peak memory, MB"),
    ]
    /// Colors of precisions in order, apart in grey as well.
    private static let colors = ["#1f4e79", "#5b9bd5", "#a5c8ec", "#7f7f7f", "#c55a11", "#f4b183"]

    private static let panelWidth = 300
    private static let barHeight = 22

    /// The picture.
    var svg: String {
        let rows = comparison.compared
        let names = comparison.rows.reduce(into: [String]()) { names, row in
            if !names.contains(row.precision) { names.append(row.precision) }
        }
        let panelHeight = 40 + rows.count * Self.barHeight
        let (left, top) = (190, 60)
        let width = left + Self.panels.count * (Self.panelWidth + 20)
        var body = text(16, 28, title, size: 18, weight: "bold")
        for (index, (row, base)) in rows.enumerated() {
            let y = top + 40 + index * Self.barHeight
            body += text(16, y + 15, "\(row.precision), \(row.label)", size: 12)
            for (panel, (column, _)) in Self.panels.enumerated() {
                let most = rows.map { $0.row.number(column) }.max() ?? 0
                let value = row.number(column)
                let length = most > 0 ? value / most * Double(Self.panelWidth - 110) : 0
                let x = left + panel * (Self.panelWidth + 20)
                let color = Self.colors[
                    (names.firstIndex(of: row.precision) ?? 0) % Self.colors.count]
                body += """
                    <rect x="\(x)" y="\(y)" width="\(Format.decimal(length, 1))" \
                    height="\(Self.barHeight - 6)" fill="\(color)"/>

                    """
                let change = base.number(column) > 0 ? 100 * (value / base.number(column) - 1) : 0
                let note =
                    row.precision == base.precision
                    ? "" : " (\(change > 0 ? "+" : "")\(Format.decimal(change, 0)) %)"
                body += text(
                    x + Int(length) + 5, y + 13, Format.decimal(value, 1) + note, size: 11)
            }
        }
        for (panel, (_, name)) in Self.panels.enumerated() {
            body += text(
                left + panel * (Self.panelWidth + 20), top + 26, name, size: 13, weight: "bold")
        }
        let context = rows.map { $0.row.number("max context") }.max() ?? 0
        body += text(
            16, top + panelHeight + 14,
            "rows: precision, batch x prompt x answer tokens; contexts of up to "
                + "\(Format.decimal(context, 0)); percent against \(names.first ?? "")", size: 11)
        return """
            <svg xmlns="http://www.w3.org/2000/svg" width="\(width)" height="\(top + panelHeight + 30)" \
            font-family="sans-serif">
            <rect width="100%" height="100%" fill="white"/>
            \(body)</svg>

            """
    }

    private func text(
        _ x: Int, _ y: Int, _ content: String, size: Int, weight: String = "normal"
    ) -> String {
        """
        <text x="\(x)" y="\(y)" font-size="\(size)" font-weight="\(weight)">\(Self.escaped(content))</text>

        """
    }

    /// Text as XML writes it.
    static func escaped(_ text: String) -> String {
        text.map { character in
            switch character {
            case "&": "&amp;"
            case "<": "&lt;"
            case ">": "&gt;"
            case "\"": "&quot;"
            default: String(character)
            }
        }.joined()
    }
}
