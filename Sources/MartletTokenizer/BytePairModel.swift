// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Merges by rank over flat tables, from bytes or from characters up.
///
/// `@unchecked Sendable`: the tables are written only in `init`.
final class BytePairModel: @unchecked Sendable {
    /// A pair of symbols and what it merges to.
    struct Slot {
        var key: UInt64
        var rank: UInt32
        var result: UInt32
    }

    static let noMerge = UInt64.max
    /// The symbol of a character that merges with nothing.
    static let unknown = UInt32.max
    private let slots: UnsafeMutablePointer<Slot>
    private let mask: UInt64
    /// Symbols of the 256 bytes, or of the 128 ASCII characters.
    private let narrowSymbols: UnsafeMutablePointer<UInt32>
    private let wideSymbols: [UInt32: UInt32]
    private let description: TokenizerDescription
    private let isCharacterBased: Bool
    /// Finds whole tokens.
    let index: VocabularyIndex
    let ignoresMerges: Bool
    /// Cuts text into parts that cannot merge; nil for bytes, which have a pre-tokenizer.
    let cutter: PieceCutter?

    /// Builds the tables.
    ///
    /// - Throws: `limitExceeded` for more merges than a vocabulary may have.
    init(_ description: TokenizerDescription) throws {
        self.description = description
        isCharacterBased = description.model == .sentencePiece
        ignoresMerges = description.ignoresMerges
        let outside = Set(description.addedTokens.map(\.id))
            .union(description.byteIDs.map { Int($0) })
        index = VocabularyIndex(description) { !outside.contains($0) }
        cutter =
            isCharacterBased ? PieceCutter(description) { !outside.contains($0) } : nil
        var characters: [UInt32: UInt32] = [:]
        if isCharacterBased {
            for id in 0..<description.vocabularySize where !outside.contains(id) {
                if let code = Self.onlyCharacter(description.bytes(of: id)) {
                    characters[code] = characters[code] ?? UInt32(truncatingIfNeeded: id)
                }
            }
        }
        let merges =
            try description.scores.isEmpty
            ? RankedMerges(ranked: description.merges)
            : RankedMerges(scored: description, index, outside, &characters)
        narrowSymbols = .allocate(capacity: 256)
        narrowSymbols.initialize(repeating: Self.unknown, count: 256)
        for code in 0..<256 {
            let id =
                isCharacterBased
                ? characters[UInt32(code)]
                : index.id(of: [UInt8(code)]).map { UInt32(truncatingIfNeeded: $0) }
            narrowSymbols[code] = id ?? Self.unknown
        }
        wideSymbols = characters.filter { $0.key >= 0x80 }
        var capacity = 16
        while capacity < merges.count * 2 { capacity *= 2 }
        mask = UInt64(capacity - 1)
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: Slot(key: .max, rank: .max, result: 0), count: capacity)
        merges.forEach { left, right, result, rank in
            let key = UInt64(left) << 32 | UInt64(right)
            var slot = BytePairModel.hash(key) & mask
            while slots[Int(slot)].key != key, slots[Int(slot)].key != .max {
                slot = (slot + 1) & mask
            }
            slots[Int(slot)] = Slot(key: key, rank: rank, result: result)
        }
    }

    deinit {
        slots.deallocate()
        narrowSymbols.deallocate()
    }

    /// The character, if the bytes are one.
    static func onlyCharacter(_ bytes: ArraySlice<UInt8>) -> UInt32? {
        guard !bytes.isEmpty, bytes.count <= 4 else { return nil }
        return bytes.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { return nil }
            let (code, length) = UTF8Decoding.scalar(base, 0, buffer.count)
            return length == buffer.count ? code : nil
        }
    }

    /// Writes the symbols that a piece consists of at first; bytes that are no token are left out.
    ///
    /// - Parameter symbols: Room for `count` symbols.
    /// - Returns: How many there are.
    @inline(__always)
    func symbols(
        of bytes: UnsafePointer<UInt8>, count: Int, into symbols: UnsafeMutablePointer<UInt32>
    ) -> Int {
        var length = 0
        if !isCharacterBased {
            for offset in 0..<count {
                let id = narrowSymbols[Int(bytes[offset])]
                symbols[length] = id
                if id != Self.unknown { length += 1 }
            }
            return length
        }
        var position = 0
        while position < count {
            if bytes[position] < 0x80 {
                symbols[length] = narrowSymbols[Int(bytes[position])]
                position += 1
            } else {
                let (code, size) = UTF8Decoding.scalar(bytes, position, count)
                symbols[length] = code.flatMap { wideSymbols[$0] } ?? Self.unknown
                position += size
            }
            length += 1
        }
        return length
    }

    /// Appends the ids of merged symbols; characters that are no token become bytes or the unknown
    /// token.
    func append(
        _ symbols: UnsafeBufferPointer<UInt32>, of bytes: UnsafePointer<UInt8>, count: Int,
        to output: inout [Int]
    ) {
        guard isCharacterBased else {
            for symbol in symbols { output.append(Int(symbol)) }
            return
        }
        var position = 0
        for symbol in symbols {
            let id = Int(symbol)
            if id < description.vocabularySize {
                output.append(id)
                position += Int(description.tokenOffsets[id + 1] - description.tokenOffsets[id])
                continue
            }
            let length = UTF8Decoding.scalar(bytes, position, count).length
            if !description.byteIDs.isEmpty {
                for offset in position..<position + length {
                    output.append(Int(description.byteIDs[Int(bytes[offset])]))
                }
            } else if let unknown = description.unknownID {
                output.append(unknown)
            }
            position += length
        }
    }

    /// Rank in the high half and resulting symbol in the low half; `noMerge` if the pair does not
    /// merge.
    @inline(__always)
    func merge(_ left: UInt32, _ right: UInt32) -> UInt64 {
        let key = UInt64(left) << 32 | UInt64(right)
        var slot = BytePairModel.hash(key) & mask
        while true {
            let entry = slots[Int(slot)]
            if entry.key == .max { return BytePairModel.noMerge }
            if entry.key == key { return UInt64(entry.rank) << 32 | UInt64(entry.result) }
            slot = (slot + 1) & mask
        }
    }

    @inline(__always)
    private static func hash(_ key: UInt64) -> UInt64 {
        let product = key &* 0x9E37_79B9_7F4A_7C15
        return product ^ product >> 32
    }
}
