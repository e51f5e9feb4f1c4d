// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletCore

/// How many pages of the KV arena requests need.
package struct KVBudget: Sendable {
    /// KV groups.
    package var groups: [KVGroup] { streams.groups }
    /// Who writes and reads them.
    package let streams: RequestStreams
    /// Tokens of the largest step.
    package let maxTokens: Int
    /// Steps that may be in flight.
    package let depth: Int

    /// Combines the groups with what bounds a window's pages.
    package init(_ streams: RequestStreams, maxTokens: Int, depth: Int) {
        self.streams = streams
        self.maxTokens = maxTokens
        self.depth = depth
    }

    /// Most pages that a request of so many computed positions, and so many tokens of a source, ever
    /// holds at once, over all groups.
    ///
    /// A windowed group holds the window before the oldest step in flight and the tokens of all
    /// steps in flight, and one page more where they do not begin at a page's start. That covers the next
    /// step's position as well, whose page an answer may take ahead.
    package func pageCount(positions: Int, sources: Int = 0) -> Int {
        var total = 0
        for (group, holdsSource) in zip(groups, streams.holdsSource) {
            if holdsSource {
                total += Self.pages(sources, group.blockSize)
                continue
            }
            var count = Self.pages(positions, group.blockSize)
            if let window = group.window {
                let span = window - 1 + depth * maxTokens
                count = min(count, Self.pages(span, group.blockSize) + 1)
            }
            total += count
        }
        return total
    }

    private static func pages(_ tokens: Int, _ blockSize: Int) -> Int {
        tokens <= 0 ? 0 : (tokens - 1) / max(blockSize, 1) + 1
    }
}
