// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

/// Reads messages: at a terminal with editing, else line by line.
///
/// A line that ends with `\` goes on in the next one; `"""` begins a message of several lines that
/// the next `"""` ends.
struct MessageReader {
    private static let fence = "\"\"\""
    private var editor: LineEditor?
    private var lines = InputLines()

    /// Whether somebody types.
    var isInteractive: Bool { editor != nil }

    init() { editor = RawTerminal.isUsable ? LineEditor() : nil }

    /// The next message.
    ///
    /// - Throws: `MartletError` `.corrupt` for a line that is no UTF-8.
    mutating func next() throws -> LineInput {
        var message = ""
        var isFenced = false
        var isFirst = true
        while true {
            var line: String
            switch try readLine(isFirst: isFirst) {
            case .line(let text): line = text
            case .interrupted: return .interrupted
            case .end: return isFirst ? .end : .line(message.trimmingLineEnd)
            }
            if isFirst, let rest = line.drop(while: \.isWhitespace).dropping(Self.fence) {
                isFenced = true
                line = rest
            }
            isFirst = false
            if isFenced {
                if let end = line.ranges(of: Self.fence).first {
                    return .line(message + line[..<end.lowerBound])
                }
                message += line + "\n"
            } else if line.hasSuffix("\\") {
                message += line.dropLast() + "\n"
            } else {
                return .line(message + line)
            }
        }
    }

    private mutating func readLine(isFirst: Bool) throws -> LineInput {
        if editor != nil {
            return editor?.read(prompt: isFirst ? "> " : ". ", continuation: ". ") ?? .end
        }
        return try lines.next().map { .line($0) } ?? .end
    }
}

extension StringProtocol {
    /// The text behind a prefix; nil if it does not start so.
    func dropping(_ prefix: String) -> String? {
        hasPrefix(prefix) ? String(dropFirst(prefix.count)) : nil
    }
}
