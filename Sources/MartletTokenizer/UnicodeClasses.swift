// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A set of Unicode classes that pre-tokenizers ask for.
struct CharacterClass: OptionSet {
    let rawValue: UInt16

    /// `\p{L}`.
    static let letter = CharacterClass(rawValue: 1)
    /// \p{N} of Unicode 16.
    static let number = CharacterClass(rawValue: 2)
    /// \s, the property White_Space.
    static let whitespace = CharacterClass(rawValue: 4)
    /// `\p{M}`.
    static let mark = CharacterClass(rawValue: 8)
    /// `\p{P}`.
    static let punctuation = CharacterClass(rawValue: 16)
    /// `\p{S}`.
    static let symbol = CharacterClass(rawValue: 32)
    /// Numbers of Unicode 17, as the `Digits` pre-tokenizer sees them.
    static let digit = CharacterClass(rawValue: 64)
    /// Lu, Lt: letters that begin a word in the o200k pattern.
    static let upper = CharacterClass(rawValue: 128)
    /// Ll.
    static let lower = CharacterClass(rawValue: 256)
    /// Pc: the connectors of `\w`.
    static let connector = CharacterClass(rawValue: 512)
    /// Nd, Nl: the numbers of `\w`.
    static let wordNumber = CharacterClass(rawValue: 2048)
    /// Characters that NFC may change, alone or after another.
    static let unstable = CharacterClass(rawValue: 4096)
    /// Control, format, private, unassigned and separator characters, but not the space: escaped by
    /// `repr`.
    static let unprintable = CharacterClass(rawValue: 1024)
}

/// Two-stage table of the Unicode classes of all code points.
///
/// `@unchecked Sendable`: the memory is written only in `init`.
final class UnicodeClasses: @unchecked Sendable {
    /// The one table, decoded at first use (under 1 ms).
    static let shared = UnicodeClasses()

    private let blockOf: UnsafeMutablePointer<UInt16>
    private let blocks: UnsafeMutablePointer<CharacterClass>
    /// Classes of the first 128 code points.
    let ascii: UnsafePointer<CharacterClass>

    private init() {
        blockOf = .allocate(capacity: 0x1100)
        blockOf.initialize(repeating: 0, count: 0x1100)
        let runs = UnicodeClasses.decodeRuns()
        var uniform: [Int: UInt16] = [:]
        var storage: [CharacterClass] = []
        var run = 0
        for block in 0..<0x1100 {
            let start = block * 256
            while run + 1 < runs.count, runs[run].end <= start { run += 1 }
            if run >= runs.count { break }
            if runs[run].end >= start + 256 {
                if let known = uniform[runs[run].value] {
                    blockOf[block] = known
                    continue
                }
                uniform[runs[run].value] = UInt16(truncatingIfNeeded: storage.count / 256)
            }
            blockOf[block] = UInt16(truncatingIfNeeded: storage.count / 256)
            var current = run
            for code in start..<(start + 256) {
                while current + 1 < runs.count, runs[current].end <= code { current += 1 }
                storage.append(UnicodeClasses.classes(ofValue: runs[current].value))
            }
        }
        blocks = .allocate(capacity: max(storage.count, 1))
        blocks.initialize(repeating: [], count: max(storage.count, 1))
        for (index, value) in storage.enumerated() { blocks[index] = value }
        ascii = UnsafePointer(blocks + Int(blockOf[0]) << 8)
    }

    deinit {
        blockOf.deallocate()
        blocks.deallocate()
    }

    /// Classes of a code point; none above U+10FFFF.
    @inline(__always)
    func callAsFunction(_ code: UInt32) -> CharacterClass {
        guard code < 0x110000 else { return [] }
        return blocks[Int(blockOf[Int(code >> 8)]) << 8 | Int(code & 255)]
    }

    private static func decodeRuns() -> [(value: Int, end: Int)] {
        var runs: [(value: Int, end: Int)] = []
        runs.reserveCapacity(4096)
        var end = 0
        var numbers = UnicodeNumbers(unicodeClassData)
        while let value = numbers.next(), let length = numbers.next() {
            end += length
            runs.append((value, end))
        }
        return runs
    }

    /// The value's low five bits are the category in the order of scripts/make-unicode-tables.py.
    private static func classes(ofValue value: Int) -> CharacterClass {
        var result: CharacterClass = []
        switch value & 31 {
        case 5: result = [.letter, .lower]
        case 6, 7: result = .letter
        case 8, 9: result = [.letter, .upper]
        case 10...12: result = .mark
        case 13, 14: result = [.number, .wordNumber]
        case 15: result = .number
        case 16: result = [.punctuation, .connector]
        case 17...22: result = .punctuation
        case 23...26: result = .symbol
        default: result = .unprintable
        }
        if value & 32 != 0 { result.insert(.whitespace) }
        if value & 64 != 0 { result.insert(.digit) }
        if value & 128 != 0 { result.insert(.unstable) }
        return result
    }
}
