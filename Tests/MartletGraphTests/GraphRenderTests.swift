// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletGraph
import Testing

@Suite struct GraphRenderTests {
    /// Two equal layers around awkward names.
    private static func layered(count: Int) throws -> Graph {
        let builder = GraphBuilder(name: "a<b & \"c\"")
        var x = SampleGraph.rows(builder, 4, name: "t\\ab<le>")
        for layer in 0..<count {
            x = builder.scope("layers.\(layer).mlp") {
                x + x.linear(builder.parameter("layers.\(layer).w", [4, 4]))
            }
        }
        builder.output("out#1", builder.scope("final") { x.activation("relu") })
        return try builder.finish()
    }

    @Test func dotText() throws {
        let graph = try SampleGraph.all[0].build()
        #expect(
            graph.dot == """
                digraph "sample" {
                  node [shape=box, style=filled, fillcolor=white, fontname=Helvetica];
                  n0 [label="input\\ntokens\\ni32[T]", shape=ellipse, fillcolor=honeydew];
                  n1 [label="parameter\\ntable\\nf32[10, 6]", fillcolor=gray93];
                  n2 [label="embedding\\nf32[T, 6]"];
                  n3 [label="x\\nf32[T, 6]", shape=ellipse, fillcolor=aliceblue];
                  n1 -> n2;
                  n0 -> n2;
                  n2 -> n3;
                }

                """)
    }

    @Test func mermaidText() throws {
        let graph = try SampleGraph.all[0].build()
        #expect(
            graph.mermaid == """
                flowchart TD
                  n0(["input<br/>tokens<br/>i32[T]"])
                  n1[/"parameter<br/>table<br/>f32[10, 6]"/]
                  n2["embedding<br/>f32[T, 6]"]
                  n3(["x<br/>f32[T, 6]"])
                  n1 --> n2
                  n0 --> n2
                  n2 --> n3

                """)
    }

    @Test func textIsEscaped() throws {
        let graph = try Self.layered(count: 1)
        #expect(graph.dot.hasPrefix("digraph \"a<b & \\\"c\\\"\" {"))
        #expect(graph.dot.contains("t\\\\ab<le>"))
        #expect(graph.mermaid.contains("t#92;ab#60;le#62;"))
        #expect(graph.mermaid.contains("out#35;1"))
        #expect(graph.svg.contains("a&lt;b &amp; &quot;c&quot;"))
        #expect(graph.svg.contains("t\\ab&lt;le&gt;"))
    }

    @Test func equalLayersAreFolded() throws {
        let graph = try Self.layered(count: 5)
        let folded = graph.dot(foldingLayers: true)
        #expect(folded.contains("label=\"layers.0 ... layers.4 x5\""))
        #expect(folded.contains("layers.0.w"))
        #expect(!folded.contains("layers.1.w"))
        #expect(graph.dot.contains("layers.4.w"))
        #expect(graph.svg(foldingLayers: true).contains("layers.0 ... layers.4: shown once, x5"))
        #expect(
            graph.mermaid(foldingLayers: true).contains(
                "subgraph fold0[\"layers.0 ... layers.4 x5\"]"))
        // The last layer's value reaches what follows the layers.
        let final = try #require(
            folded.split(separator: "\n").first { $0.contains("\"activation") })
        let id = try #require(final.split(separator: " ").first)
        #expect(folded.contains("-> \(id);"))
    }

    @Test func differentLayersAreNotFolded() throws {
        let builder = GraphBuilder(name: "g")
        var x = SampleGraph.rows(builder, 4)
        for (layer, kind) in ["relu", "silu", "relu", "relu"].enumerated() {
            x = builder.scope("layers.\(layer)") { x.activation(kind) }
        }
        builder.output("y", x)
        let text = try builder.finish().mermaid(foldingLayers: true)
        #expect(text.contains("layers.0<br/>"))
        #expect(text.contains("layers.1<br/>"))
        #expect(text.contains("layers.2 ... layers.3 x2"))
        #expect(!text.contains("layers.3<br/>"))
    }

    @Test(arguments: SampleGraph.all, [false, true])
    func svgIsWellFormed(_ sample: SampleGraph, folding: Bool) throws {
        let graph = try sample.build()
        let tags = try XMLTags(graph.svg(foldingLayers: folding))
        #expect(tags.counts["svg"] == 1)
        #expect(tags.counts["rect"] == graph.nodes.count + graph.outputs.count + 1)
        #expect((tags.counts["path"] ?? 0) > 0)
    }

    @Test func awkwardSVGIsWellFormed() throws {
        var graph = try Self.layered(count: 3)
        for node in graph.nodes { graph.update(node.id) { $0.path += "\u{1}]]> & \u{fffe}é" } }
        #expect(try XMLTags(graph.svg(foldingLayers: true)).counts["svg"] == 1)
        #expect(try XMLTags(Graph(name: "").svg).counts["svg"] == 1)
    }

    /// Boxes of one picture do not cover each other.
    @Test(arguments: SampleGraph.all)
    func boxesDoNotOverlap(_ sample: SampleGraph) throws {
        let frames = try XMLTags(try sample.build().svg).frames.dropFirst()
        for (index, a) in frames.enumerated() {
            for b in frames.dropFirst(index + 1) {
                let apart =
                    a[0] + a[2] <= b[0] || b[0] + b[2] <= a[0] || a[1] + a[3] <= b[1]
                    || b[1] + b[3] <= a[1]
                #expect(apart, "\(a) and \(b)")
            }
        }
    }
}

/// A strict reader of the little XML that the pictures need: fails on anything not well formed.
struct XMLTags {
    private(set) var counts: [String: Int] = [:]
    /// x, y, width and height of each `rect` that has all of them.
    private(set) var frames: [[Double]] = []

    init(_ text: String) throws {
        var open: [String] = []
        var rest = Substring(text)
        func fail(_ message: String) -> MartletError { MartletError(.corrupt, message) }
        while let start = rest.firstIndex(of: "<") {
            try Self.checkText(rest[..<start])
            guard let end = rest[start...].firstIndex(of: ">") else { throw fail("no end of tag") }
            var tag = rest[rest.index(after: start)..<end]
            rest = rest[rest.index(after: end)...]
            if tag.first == "/" {
                guard open.popLast() == String(tag.dropFirst()) else { throw fail("</\(tag)>") }
                continue
            }
            let isClosed = tag.last == "/"
            if isClosed { tag = tag.dropLast() }
            let name = String(tag.prefix { $0.isLetter })
            guard !name.isEmpty else { throw fail("no name in <\(tag)>") }
            counts[name, default: 0] += 1
            let attributes = try Self.attributes(tag.dropFirst(name.count))
            let frame = ["x", "y", "width", "height"].compactMap {
                attributes[$0].flatMap(Double.init)
            }
            if name == "rect" { frames.append(frame.count == 4 ? frame : [0, 0, 0, 0]) }
            if !isClosed { open.append(name) }
        }
        try Self.checkText(rest)
        guard open.isEmpty else { throw fail("\(open) left open") }
    }

    private static func attributes(_ text: Substring) throws -> [String: String] {
        var result: [String: String] = [:]
        var rest = text.drop { $0 == " " }
        while !rest.isEmpty {
            let name = rest.prefix { $0.isLetter || $0 == "-" }
            rest = rest.dropFirst(name.count)
            guard !name.isEmpty, rest.hasPrefix("=\"") else {
                throw MartletError(.corrupt, "bad attribute in \(text)")
            }
            rest = rest.dropFirst(2)
            let value = rest.prefix { $0 != "\"" }
            try checkText(value)
            rest = rest.dropFirst(value.count + 1).drop { $0 == " " }
            guard result.updateValue(String(value), forKey: String(name)) == nil else {
                throw MartletError(.corrupt, "attribute \(name) twice")
            }
        }
        return result
    }

    private static func checkText(_ text: Substring) throws {
        for part in text.split(separator: "&", omittingEmptySubsequences: false).dropFirst() {
            guard ["amp;", "lt;", "gt;", "quot;", "#39;"].contains(where: part.hasPrefix) else {
                throw MartletError(.corrupt, "bare & in \(text)")
            }
        }
        for scalar in text.unicodeScalars {
            guard scalar.value >= 0x20 || scalar == "\n", ![0xfffe, 0xffff].contains(scalar.value)
            else { throw MartletError(.corrupt, "forbidden character \(scalar.value)") }
        }
    }
}
