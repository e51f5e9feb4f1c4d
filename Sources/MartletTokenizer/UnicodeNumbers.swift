// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Reads the numbers of a generated table: five bits per character, low first; 32 marks that more
/// follow.
struct UnicodeNumbers: Sequence, IteratorProtocol {
    private static let digits: [UInt8] = {
        var digits = [UInt8](repeating: 255, count: 256)
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        for (index, byte) in alphabet.utf8.enumerated() { digits[Int(byte)] = UInt8(index) }
        return digits
    }()

    private let text: StaticString
    private let digits = UnicodeNumbers.digits
    private var position = 0

    init(_ text: StaticString) { self.text = text }

    mutating func next() -> Int? {
        var number = 0
        var shift = 0
        while position < text.utf8CodeUnitCount {
            let digit = Int(digits[Int(text.utf8Start[position])])
            position += 1
            if digit == 255 { continue }
            number |= (digit & 31) << shift
            shift += 5
            if digit & 32 == 0 { return number }
        }
        return nil
    }
}
