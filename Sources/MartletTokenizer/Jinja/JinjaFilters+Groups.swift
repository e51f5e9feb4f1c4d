// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Filters that put elements into groups.
extension JinjaRenderer {
    func groupFilter(
        _ name: String, _ value: JinjaValue, _ arguments: JinjaArguments
    ) throws -> JinjaValue {
        let groups: [JinjaValue] =
            switch name {
            case "batch": try batches(value, arguments)
            case "slice": try slices(value, arguments)
            default: try grouped(value, arguments)
            }
        return .list(JinjaList(groups))
    }

    private func count(_ name: String, _ label: String, _ arguments: JinjaArguments) throws -> Int {
        guard let count = arguments.value(0, label)?.integer else {
            throw JinjaFailure.error("\(name) expects a count")
        }
        return count
    }

    private func batches(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> [JinjaValue] {
        let size = try count("batch", "linecount", arguments)
        var (batches, last) = ([JinjaValue](), [JinjaValue]())
        for item in try value.elements() {
            if last.count == size {
                batches.append(.list(JinjaList(last)))
                last = []
            }
            last.append(item)
        }
        guard !last.isEmpty else { return batches }
        if let fill = arguments.value(1, "fill_with"), !fill.isNone, last.count < size {
            try JinjaLimits.check(elements: size)
            last += Array(repeating: fill, count: size - last.count)
        }
        return batches + [.list(JinjaList(last))]
    }

    private func slices(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> [JinjaValue] {
        let count = try count("slice", "slices", arguments)
        let items = try value.elements()
        guard count != 0 else { throw JinjaFailure.error("integer division or modulo by zero") }
        guard count > 0 else { return [] }
        try JinjaLimits.check(elements: count)
        let (size, longer) = items.count.quotientAndRemainder(dividingBy: count)
        var start = 0
        return (0..<count).map { index in
            let end = start + size + (index < longer ? 1 : 0)
            defer { start = end }
            var part = Array(items[start..<end])
            if let fill = arguments.value(1, "fill_with"), !fill.isNone, index >= longer {
                part.append(fill)
            }
            return .list(JinjaList(part))
        }
    }

    private func grouped(_ value: JinjaValue, _ arguments: JinjaArguments) throws -> [JinjaValue] {
        guard let attribute = arguments.value(0, "attribute") else {
            throw JinjaFailure.error("groupby expects an attribute")
        }
        let fallback = arguments.value(1, "default").flatMap { $0.isNone ? nil : $0 }
        let isCaseSensitive = arguments.value(2, "case_sensitive")?.isTrue ?? false
        let keyed = try value.elements().map { element -> (key: JinjaValue, item: JinjaValue) in
            let found = try path(attribute, of: element)
            return (found.isUndefined ? fallback ?? found : found, element)
        }
        let sorted = try sorted(
            keyed.map { (folded($0.key, isCaseSensitive), .tuple([$0.key, $0.item])) }, false)
        var groups: [(folded: JinjaValue, key: JinjaValue, items: [JinjaValue])] = []
        for case .tuple(let pair) in sorted {
            let key = folded(pair[0], isCaseSensitive)
            if let last = groups.last, try equal(last.folded, key) {
                groups[groups.count - 1].items.append(pair[1])
            } else {
                groups.append((key, pair[0], [pair[1]]))
            }
        }
        return groups.map { .tuple([$0.key, .list(JinjaList($0.items, isGroup: true))]) }
    }
}
