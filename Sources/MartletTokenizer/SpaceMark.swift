// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// SentencePiece's `▁` (U+2581), which files write for a space.
///
/// Tables and texts hold spaces instead, so that decoding is joining bytes.
enum SpaceMark {
    static let bytes: [UInt8] = [0xE2, 0x96, 0x81]

    /// Whether a mark stands at a position.
    @inline(__always)
    static func isMark(_ text: UnsafePointer<UInt8>, _ position: Int, _ end: Int) -> Bool {
        text[position] == 0xE2 && end - position >= 3 && text[position + 1] == 0x96
            && text[position + 2] == 0x81
    }

    /// Appends a text with spaces in place of marks.
    static func appendUnmarked(_ text: UnsafeBufferPointer<UInt8>, to output: inout [UInt8]) {
        guard let base = text.baseAddress else { return }
        var position = 0
        while position < text.count {
            if isMark(base, position, text.count) {
                output.append(UInt8(ascii: " "))
                position += 3
            } else {
                output.append(base[position])
                position += 1
            }
        }
    }

    /// A text with spaces in place of marks.
    static func unmarked(_ text: String) -> String {
        var text = text
        var output: [UInt8] = []
        text.withUTF8 { appendUnmarked($0, to: &output) }
        return String(decoding: output, as: UTF8.self)
    }
}
