// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Places boxes of a directed acyclic graph in ranks from top to bottom.
///
/// Ranks by longest path, sources just above their first user; edges over several ranks run through
/// bends that take part in ordering (medians of neighbours, alternating sweeps) and placing.
struct LayeredLayout {
    struct Point {
        var x: Double
        var y: Double
    }
    /// A box: x of its middle, y of its top.
    struct Frame {
        var x = 0.0
        var y = 0.0
        var width: Double
        var height: Double
    }

    private static let gap = 18.0
    private static let rankGap = 42.0

    /// Boxes, in the order given.
    private(set) var frames: [Frame]
    /// For each edge the points it runs through.
    private(set) var routes: [[Point]] = []
    /// Extent of the picture.
    private(set) var width = 0.0
    private(set) var height = 0.0

    /// Boxes and bends; bends follow the boxes.
    private var vertices: [Frame] = []
    private var rankOf: [Int] = []
    private var above: [[Int]] = []
    private var below: [[Int]] = []
    private var ranks: [[Int]] = []

    /// Lays out; each edge's `from` must be smaller than its `to`.
    init(sizes: [(width: Double, height: Double)], edges: [(from: Int, to: Int)]) {
        frames = sizes.map { Frame(width: $0.width, height: $0.height) }
        guard !frames.isEmpty else { return }
        assignRanks(edges)
        let chains = addBends(edges)
        for sweep in 0..<6 { order(downwards: sweep % 2 == 0) }
        place()
        for chain in chains { routes.append(route(chain)) }
        frames = Array(vertices[..<frames.count])
    }

    private mutating func assignRanks(_ edges: [(from: Int, to: Int)]) {
        rankOf = Array(repeating: 0, count: frames.count)
        var users = [[Int]](repeating: [], count: frames.count)
        var hasOperand = [Bool](repeating: false, count: frames.count)
        for edge in edges.sorted(by: { ($0.to, $0.from) < ($1.to, $1.from) }) {
            rankOf[edge.to] = max(rankOf[edge.to], rankOf[edge.from] + 1)
            users[edge.from].append(edge.to)
            hasOperand[edge.to] = true
        }
        for index in frames.indices where !hasOperand[index] {
            if let first = users[index].map({ rankOf[$0] }).min() { rankOf[index] = first - 1 }
        }
    }

    private mutating func addBends(_ edges: [(from: Int, to: Int)]) -> [[Int]] {
        vertices = frames
        above = Array(repeating: [], count: vertices.count)
        below = above
        var chains: [[Int]] = []
        for edge in edges {
            var chain = [edge.from]
            for rank in rankOf[edge.from] + 1..<max(rankOf[edge.to], rankOf[edge.from] + 1) {
                chain.append(vertices.count)
                vertices.append(Frame(width: 2, height: 0))
                rankOf.append(rank)
                above.append([])
                below.append([])
            }
            chain.append(edge.to)
            for (a, b) in zip(chain, chain.dropFirst()) {
                below[a].append(b)
                above[b].append(a)
            }
            chains.append(chain)
        }
        ranks = Array(repeating: [], count: (rankOf.max() ?? 0) + 1)
        for index in vertices.indices { ranks[rankOf[index]].append(index) }
        return chains
    }

    private mutating func order(downwards: Bool) {
        var positions = [Double](repeating: 0, count: vertices.count)
        for rank in ranks {
            for (index, vertex) in rank.enumerated() { positions[vertex] = Double(index) }
        }
        for number in downwards ? Array(ranks.indices) : ranks.indices.reversed() {
            let keyed = ranks[number].enumerated().map { index, vertex in
                let neighbours = (downwards ? above : below)[vertex].map { positions[$0] }.sorted()
                let key = neighbours.isEmpty ? positions[vertex] : neighbours[neighbours.count / 2]
                return (key: key, index: index, vertex: vertex)
            }
            ranks[number] = keyed.sorted { ($0.key, $0.index) < ($1.key, $1.index) }.map(\.vertex)
            for (index, vertex) in ranks[number].enumerated() { positions[vertex] = Double(index) }
        }
    }

    private mutating func place() {
        var y = 0.0
        for rank in ranks {
            var x = 0.0
            let tallest = rank.map { vertices[$0].height }.max() ?? 0
            for vertex in rank {
                vertices[vertex].x = x + vertices[vertex].width / 2
                vertices[vertex].y = y
                x += vertices[vertex].width + Self.gap
            }
            y += tallest + Self.rankGap
        }
        height = y - Self.rankGap
        for sweep in 0..<8 {
            let downwards = sweep % 2 == 0
            for number in downwards ? Array(ranks.indices) : ranks.indices.reversed() {
                align(ranks[number], to: downwards ? above : below)
            }
        }
        let left = vertices.map { $0.x - $0.width / 2 }.min() ?? 0
        for index in vertices.indices { vertices[index].x -= left }
        width = vertices.map { $0.x + $0.width / 2 }.max() ?? 0
    }

    /// Moves the boxes of a rank towards the mean of their neighbours, keeping order and gaps.
    private mutating func align(_ rank: [Int], to neighbours: [[Int]]) {
        let wanted = rank.map { vertex -> Double in
            let near = neighbours[vertex]
            if near.isEmpty { return vertices[vertex].x }
            return near.reduce(0) { $0 + vertices[$1].x } / Double(near.count)
        }
        func distance(_ a: Int, _ b: Int) -> Double {
            (vertices[rank[a]].width + vertices[rank[b]].width) / 2 + Self.gap
        }
        var fromLeft = wanted
        for i in fromLeft.indices.dropFirst() {
            fromLeft[i] = max(wanted[i], fromLeft[i - 1] + distance(i - 1, i))
        }
        var fromRight = wanted
        for i in fromRight.indices.dropLast().reversed() {
            fromRight[i] = min(wanted[i], fromRight[i + 1] - distance(i, i + 1))
        }
        // The mean of two placements that keep all gaps keeps them too.
        for (i, vertex) in rank.enumerated() {
            vertices[vertex].x = (fromLeft[i] + fromRight[i]) / 2
        }
    }

    private func route(_ chain: [Int]) -> [Point] {
        var points: [Point] = []
        for (index, vertex) in chain.enumerated() {
            let frame = vertices[vertex]
            if index == 0 { points.append(Point(x: frame.x, y: frame.y + frame.height)) }
            if index > 0 { points.append(Point(x: frame.x, y: frame.y)) }
            // A bend passes its whole rank upright.
            if index > 0, index < chain.count - 1 {
                let tallest = ranks[rankOf[vertex]].map { vertices[$0].height }.max() ?? 0
                points.append(Point(x: frame.x, y: frame.y + tallest))
            }
        }
        return points
    }
}
