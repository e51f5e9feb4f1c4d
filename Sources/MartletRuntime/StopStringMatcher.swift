// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Finds stop strings in a growing text, and holds back what could be the beginning of one.
///
/// Works on UTF-8 bytes: a stop string matches wherever pieces are split, and what is given out
/// always ends between characters' code points.
package struct StopStringMatcher: Sendable {
    private let stops: [[UInt8]]
    private var held: [UInt8] = []

    /// Text that is certain not to belong to a stop string, and the stop string if one was reached.
    package struct Result: Sendable, Hashable {
        /// Text to give out.
        package var text: String
        /// The stop string reached.
        package var match: String?

        /// Pairs text with a match.
        package init(text: String, match: String?) {
            self.text = text
            self.match = match
        }
    }

    /// Looks for these texts; empty ones are ignored.
    package init(_ stops: [String]) {
        self.stops = stops.filter { !$0.isEmpty }.map { Array($0.utf8) }
    }

    /// Adds text.
    ///
    /// - Returns: Text before the first match, or all text that no stop string can reach into.
    ///   With a match the matcher is at its end.
    package mutating func append(_ piece: String) -> Result {
        guard !stops.isEmpty else { return Result(text: piece, match: nil) }
        held.append(contentsOf: piece.utf8)
        for start in held.indices {
            for stop in stops where held[start...].starts(with: stop) {
                let text = String(decoding: held[..<start], as: UTF8.self)
                held.removeAll()
                return Result(text: text, match: String(decoding: stop, as: UTF8.self))
            }
        }
        let keep = held.indices.first { start in
            stops.contains { $0.count > held.count - start && $0.starts(with: held[start...]) }
        }
        let end = keep ?? held.count
        let text = String(decoding: held[..<end], as: UTF8.self)
        held.removeFirst(end)
        return Result(text: text, match: nil)
    }

    /// Text held back, given out since the answer ended otherwise.
    package mutating func finish() -> String {
        let text = String(decoding: held, as: UTF8.self)
        held.removeAll()
        return text
    }
}
