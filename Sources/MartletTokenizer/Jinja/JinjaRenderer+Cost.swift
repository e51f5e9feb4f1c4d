// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// What operations read, counted before they run: a template may name one list twice in the next, forty
/// times over, and compare that.
extension JinjaRenderer {
    /// Counts characters and elements that are about to be read.
    func read(_ count: Int) throws {
        readsLeft -= count
        guard readsLeft >= 0 else {
            throw MartletError(
                .limitExceeded,
                "chat template: comparing and searching exceeds \(JinjaLimits.reads) characters and "
                    + "elements, the limit",
                mend: "Shorten the messages, or leave the template out: martlet run MODEL --raw")
        }
    }

    /// Characters of a text, elements of anything else.
    private func breadth(_ value: JinjaValue) -> Int {
        switch value {
        case .string(let text): text.count
        case .list(let list): list.items.count
        case .tuple(let items): items.count
        case .dict(let dict): dict.count
        case .range(let range): range.count
        default: 0
        }
    }

    /// Counts what an operation on the outermost level of values reads.
    func readBreadth(_ value: JinjaValue, _ arguments: JinjaArguments = JinjaArguments()) throws {
        try read(breadth(value))
        for argument in arguments.positional { try read(breadth(argument)) }
        for argument in arguments.named { try read(breadth(argument.value)) }
    }

    /// What reading all of a value takes, at most the limit.
    private func cost(_ value: JinjaValue, limit: Int, depth: Int = 0) -> Int {
        guard depth < JinjaLimits.depth else { return limit }
        var total = 16
        func add(_ values: [JinjaValue]) {
            for value in values where total < limit {
                total += cost(value, limit: limit - total, depth: depth + 1)
            }
        }
        switch value {
        case .string(let text): total += text.count
        case .list(let list): add(list.items)
        case .tuple(let items): add(items)
        case .dict(let dict):
            add(dict.keys)
            add(dict.values)
        default: break
        }
        return min(total, limit)
    }

    /// Counts what reading all of a value takes, so many times.
    func readWhole(_ value: JinjaValue, times: Int = 1) throws {
        try read(cost(value, limit: readsLeft / max(times, 1) + 1) * times)
    }

    /// Counts what a comparison takes: no more than the smaller of both.
    private func readBoth(_ a: JinjaValue, _ b: JinjaValue) throws {
        try read(cost(b, limit: cost(a, limit: readsLeft + 1)))
    }

    /// Python's `==`.
    func equal(_ a: JinjaValue, _ b: JinjaValue) throws -> Bool {
        try readBoth(a, b)
        return try a.equals(b)
    }

    /// Python's `<`, or the mirrored operator of that symbol.
    func less(_ a: JinjaValue, _ b: JinjaValue, _ symbol: String = "<") throws -> Bool {
        try readBoth(a, b)
        return try a.isLess(than: b, symbol)
    }
}
