// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Collects tokens and merges into a description.
struct VocabularyBuilder {
    var description = TokenizerDescription()
    private var isLookedUp: [Bool] = []

    /// Appends the next token.
    ///
    /// - Parameters:
    ///   - text: The token as files write it.
    ///   - isText: The text stands for itself (control and added tokens), else it is in the byte
    ///     alphabet.
    mutating func append(_ text: String, isText: Bool) throws {
        var text = text
        // Some vocabularies hold tokens outside the byte alphabet; no merge makes them.
        let isInAlphabet = text.withUTF8 { utf8 in
            if !isText, ByteAlphabet.appendBytes(of: utf8, to: &description.tokenBytes) {
                return true
            }
            description.tokenBytes.append(contentsOf: utf8)
            return false
        }
        guard description.tokenBytes.count <= 1 << 30 else {
            throw MartletError(
                .limitExceeded, "the vocabulary's text exceeds 1 GiB, the limit",
                context: ["token": "\(description.vocabularySize)"])
        }
        description.tokenOffsets.append(UInt32(truncatingIfNeeded: description.tokenBytes.count))
        isLookedUp.append(isInAlphabet)
    }

    /// Resolves the merges, each given as the texts of its two halves.
    mutating func setMerges(_ count: Int, _ halves: (Int) throws -> (String, String)) throws {
        let index = VocabularyIndex(description) { id in isLookedUp[id] }
        let all = VocabularyIndex(description) { _ in true }
        var merges: [UInt32] = []
        merges.reserveCapacity(count * 3)
        var bytes: [UInt8] = []
        for rank in 0..<count {
            var (left, right) = try halves(rank)
            bytes.removeAll(keepingCapacity: true)
            var found: [UInt32] = []
            var split = 0
            for half in 0..<2 {
                if half == 0 {
                    left.withUTF8 { appendBytes($0, &bytes) }
                } else {
                    right.withUTF8 { appendBytes($0, &bytes) }
                }
                let part = Array(bytes[split...])
                split = bytes.count
                if let id = index.id(of: part) ?? all.id(of: part) { found.append(UInt32(id)) }
            }
            if let id = index.id(of: bytes) ?? all.id(of: bytes) { found.append(UInt32(id)) }
            guard found.count == 3 else {
                throw MartletError(
                    .corrupt,
                    "merge \(rank) (\"\(left) \(right)\") names a token that the vocabulary lacks",
                    context: ["merge": "\(rank)"])
            }
            merges.append(contentsOf: found)
        }
        description.merges = merges
    }

    private func appendBytes(_ text: UnsafeBufferPointer<UInt8>, _ output: inout [UInt8]) {
        if !ByteAlphabet.appendBytes(of: text, to: &output) { output.append(contentsOf: text) }
    }
}
