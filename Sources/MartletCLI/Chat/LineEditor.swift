// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A line, or the news that there is none.
enum LineInput: Equatable {
    case line(String)
    /// Ctrl-C.
    case interrupted
    /// No more input.
    case end
}

/// Reads a message at a terminal: arrows, history, UTF-8, pasted lines as one message.
struct LineEditor {
    private var history: [String] = []
    private var isPasting = false
    /// Row of the cursor below the first row of the prompt, as drawn last.
    private var cursorRow = 0

    /// Most messages that are remembered.
    private static let historyLimit = 1000

    /// Reads until Enter.
    ///
    /// - Parameters:
    ///   - prompt: Shown before the text.
    ///   - continuation: Shown before its further lines.
    mutating func read(prompt: String, continuation: String) -> LineInput {
        guard RawTerminal.enter() else { return .end }
        defer { RawTerminal.pause() }
        let keys = KeyReader { RawTerminal.byte(within: $0) }
        var buffer = LineBuffer()
        var entries = history + [""]
        var entry = entries.count - 1
        cursorRow = 0
        draw(prompt, continuation, buffer)
        while let key = keys.next() {
            switch key {
            case .paste(let isStart): isPasting = isStart
            case .enter where isPasting: _ = buffer.apply(.newLine)
            case .enter:
                finish(prompt, continuation, buffer)
                remember(buffer.text)
                return .line(buffer.text)
            case .interrupt:
                finish(prompt, continuation, buffer)
                return .interrupted
            case .endOfInput where buffer.text.isEmpty:
                finish(prompt, continuation, buffer)
                return .end
            case .endOfInput: _ = buffer.apply(.delete)
            case .up, .down:
                entries[entry] = buffer.text
                entry = min(max(entry + (key == .up ? -1 : 1), 0), entries.count - 1)
                buffer.text = entries[entry]
            case .clearScreen:
                Console.status("\u{1b}[H\u{1b}[2J")
                cursorRow = 0
            case .suspend:
                finish(prompt, continuation, buffer)
                RawTerminal.leave()
                raise(SIGTSTP)
                guard RawTerminal.enter() else { return .end }
                cursorRow = 0
            default: if !buffer.apply(key) { continue }
            }
            if !isPasting { draw(prompt, continuation, buffer) }
        }
        finish(prompt, continuation, buffer)
        return buffer.text.isEmpty ? .end : .line(buffer.text)
    }

    private mutating func remember(_ text: String) {
        guard !text.isEmpty, history.last != text else { return }
        history.append(text)
        if history.count > Self.historyLimit { history.removeFirst() }
    }

    /// Draws with the cursor behind the text, on a line of its own.
    private mutating func finish(_ prompt: String, _ continuation: String, _ buffer: LineBuffer) {
        var all = LineBuffer()
        all.text = buffer.text
        draw(prompt, continuation, all)
        Console.status("\r\n")
    }

    /// Draws prompt and text over what was drawn last, wrapping lines itself.
    private mutating func draw(_ prompt: String, _ continuation: String, _ buffer: LineBuffer) {
        let width = RawTerminal.columnCount
        var output = "\r" + (cursorRow > 0 ? "\u{1b}[\(cursorRow)A" : "") + "\u{1b}[J"
        var row = 0, column = 0
        func put(_ character: Character) {
            if character.isNewline {
                output += "\r\n" + continuation
                (row, column) = (row + 1, DisplayWidth.of(continuation))
                return
            }
            let shown: Character = character == "\t" ? " " : character
            let size = DisplayWidth.of(shown)
            if column + size > width {
                output += "\r\n"
                (row, column) = (row + 1, 0)
            }
            output.append(shown)
            column += size
            // A full row leaves the cursor in doubt; a new one does not.
            if column == width {
                output += "\r\n"
                (row, column) = (row + 1, 0)
            }
        }
        (prompt + buffer.before).forEach(put)
        let cursor = (row: row, column: column)
        buffer.after.forEach(put)
        if row > cursor.row { output += "\u{1b}[\(row - cursor.row)A" }
        output += "\r" + (cursor.column > 0 ? "\u{1b}[\(cursor.column)C" : "")
        cursorRow = cursor.row
        Console.status(output)
    }
}
