// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// Slots of the batch over steps as a picture: a panel a policy, all on one scale.
struct LoadTimelineChart {
    private let title: String
    private let results: [LoadResult]

    init(title: String, _ results: [LoadResult]) {
        self.title = title
        self.results = results
    }

    private static let rowHeight = 14
    private static let left = 60
    private static let width = 1400.0
    /// An answer's color and its prompt's, darker; requests take them in turn.
    private static let colors = [
        ("#9ecae1", "#2171b5"), ("#fdae6b", "#d94801"), ("#a1d99b", "#238b45"),
        ("#bcbddc", "#6a51a3"), ("#f4a6c0", "#ae017e"), ("#d9c89e", "#8c6d31"),
        ("#9adbd3", "#01665e"), ("#c6c6c6", "#525252"),
    ]

    /// The picture.
    var svg: String {
        let timelines = results.map(\.recorder.timeline)
        let steps = max(timelines.map(\.stepCount).max() ?? 1, 1)
        let scale = min(Self.width / Double(steps), 24)
        var body = text(16, 26, title, size: 18, weight: "bold")
        var y = legend(at: 40, &body)
        for (result, timeline) in zip(results, timelines) {
            let heading =
                "\(result.policy.rawValue): \(timeline.stepCount) steps, "
                + "\(Format.decimal(result.metrics.duration, 2)) s, "
                + "\(Format.decimal(result.metrics.outputRate, 1)) answer tokens/s"
            body += text(16, y + 20, heading, size: 13, weight: "bold")
            y += 30
            panel(timeline, scale: scale, top: y, &body)
            y += timeline.slotCount * Self.rowHeight + 34
        }
        let right = Self.left + Int((Double(steps) * scale).rounded(.up)) + 20
        return """
            <svg xmlns="http://www.w3.org/2000/svg" width="\(max(right, 620))" height="\(y)" \
            font-family="sans-serif">
            <defs><pattern id="padding" width="6" height="6" patternUnits="userSpaceOnUse" \
            patternTransform="rotate(45)"><rect width="6" height="6" fill="#eeeeee"/>\
            <rect width="2" height="6" fill="#b0b0b0"/></pattern></defs>
            <rect width="100%" height="100%" fill="white"/>
            \(body)</svg>

            """
    }

    private func legend(at y: Int, _ body: inout String) -> Int {
        let entries = [
            ("prompt, in chunks", Self.colors[0].1), ("answer", Self.colors[0].0),
            ("computed for nothing", "url(#padding)"), ("paused", "#e31a1c"),
        ]
        for (index, (name, fill)) in entries.enumerated() {
            let x = 16 + index * 150
            body += rectangle(Double(x), y, 14, fill, height: 10, title: name)
            body += text(x + 20, y + 10, name, size: 11)
        }
        return y + 20
    }

    private func panel(_ timeline: Timeline, scale: Double, top: Int, _ body: inout String) {
        for slot in 0..<timeline.slotCount
        where timeline.slotCount <= 32 || slot % 8 == 0 {
            body += text(16, top + slot * Self.rowHeight + 11, "slot \(slot)", size: 9)
        }
        // Numbers of requests as people count them: in order of their arrival in this load.
        let first = timeline.spans.map(\.request.rawValue).min() ?? 0
        for span in timeline.spans {
            let number = Int(clamping: span.request.rawValue - first)
            let color = Self.colors[number % Self.colors.count]
            let x = Double(Self.left) + Double(span.steps.lowerBound) * scale
            let width = Double(span.steps.count) * scale
            let y = top + span.slot * Self.rowHeight
            let (fill, what) =
                switch span.work {
                case .prompt: (color.1, "prompt")
                case .answer: (color.0, "answer")
                case .padding: ("url(#padding)", "computed for nothing")
                }
            let steps = "steps \(span.steps.lowerBound) to \(span.steps.upperBound - 1)"
            body += rectangle(
                x, y, width, fill, height: Self.rowHeight - 2,
                title: "request \(number), \(what), \(steps)")
            if span.work == .answer, width > 9 + 6 * Double("\(number)".count) {
                body += text(Int(x) + 4, y + 9, "\(number)", size: 9)
            }
        }
        for pause in timeline.pauses {
            let x = Double(Self.left) + Double(pause.step) * scale
            body += rectangle(
                max(x - 2, 0), top + pause.slot * Self.rowHeight, 3, "#e31a1c",
                height: Self.rowHeight - 2,
                title: "request \(Int(clamping: pause.request.rawValue - first)) paused")
        }
        let bottom = top + timeline.slotCount * Self.rowHeight + 10
        for mark in ticks(timeline.stepCount) {
            body += text(
                Self.left + Int(Double(mark) * scale), bottom, "\(mark)", size: 9)
        }
    }

    /// Round numbers of steps, about ten of them.
    private func ticks(_ count: Int) -> [Int] {
        var unit = 1
        while count / unit > 20 { unit *= 10 }
        if count / unit > 10 { unit *= 2 }
        return Array(stride(from: 0, through: count, by: unit))
    }

    private func rectangle(
        _ x: Double, _ y: Int, _ width: Double, _ fill: String, height: Int, title: String
    ) -> String {
        """
        <rect x="\(Format.decimal(x, 2))" y="\(y)" width="\(Format.decimal(width, 2))" \
        height="\(height)" fill="\(fill)"><title>\(title)</title></rect>

        """
    }

    private func text(
        _ x: Int, _ y: Int, _ content: String, size: Int, weight: String = "normal"
    ) -> String {
        """
        <text x="\(x)" y="\(y)" font-size="\(size)" font-weight="\(weight)">\(ComparisonChart.escaped(content))</text>

        """
    }
}
