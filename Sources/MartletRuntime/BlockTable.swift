// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Pages of one request in one KV group.
package struct BlockTable: Sendable {
    /// Index of the first page's block among the request's blocks; those before left the window.
    package var firstBlock = 0
    /// Pages in order.
    package var pages: [Int32] = [] {
        didSet {
            stamp = Self.makeStamp()
            stampBefore = 0
        }
    }
    /// Tables with the same stamp have the same pages; 0 for a table that never had any.
    package private(set) var stamp: UInt64 = 0
    /// The stamp of this table without its last page, if that is known, or 0.
    package private(set) var stampBefore: UInt64 = 0

    /// An empty table.
    package init() {}

    /// Adds a page at the end.
    package mutating func append(_ page: Int32) {
        let before = stamp
        pages.append(page)
        stampBefore = before
    }

    private static let lastStamp = Atomic<UInt64>(0)
    private static func makeStamp() -> UInt64 {
        lastStamp.add(1, ordering: .relaxed).newValue
    }
}
