// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletFormats
import MartletTokenizer

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

extension GGUFValue: GGUFMetadataValue {}

/// Compares ids with those of a reference, and measures the speed; run by scripts/compare-tokenizers.
///
/// Usage: TokenizerCheck VOCABULARY TEXTS IDS [special | decode]. The vocabulary is a `.gguf`, `.json` or
/// `.model` file. TEXTS holds a count of bytes (u32) and the bytes of each text, IDS a count of ids and
/// the ids (u32). With `decode` ids become texts, at once and token by token.
/// `TokenizerCheck templates GOLDEN` renders what scripts/make-template-golden.py wrote.
@main struct TokenizerCheck {
    static func main() throws {
        let arguments = CommandLine.arguments
        if arguments.count == 3, arguments[1] == "templates" {
            return try compareTemplates(arguments[2])
        }
        guard arguments.count >= 4 else {
            throw MartletError(.invalidArgument, "usage: VOCABULARY TEXTS IDS [special | decode]")
        }
        let start = processSeconds()
        let tokenizer = try load(arguments[1])
        let loading = processSeconds() - start
        let texts = try MappedFile.map(arguments[2])
        let ids = try MappedFile.map(arguments[3]).array(of: UInt32.self)
        let isTrusted = arguments.dropFirst(4).contains("special")
        let decodes = arguments.dropFirst(4).contains("decode")
        let text = texts.withUnsafeBytes { Array($0) }
        var report = Report()
        var position = 0
        var next = 0
        while position + 4 <= text.count {
            let count = Int(word(text, position))
            let bytes = Array(text[(position + 4)..<(position + 4 + count)])
            position += 4 + count
            let expected = ids[(next + 1)..<(next + 1 + Int(ids[next]))].map { Int($0) }
            next += 1 + expected.count
            let began = processSeconds()
            if decodes {
                let text = tokenizer.decode(expected, skipSpecial: false)
                report.seconds += processSeconds() - began
                report.compare(text, expected, bytes, tokenizer)
                continue
            }
            let mine = tokenizer.encode(bytes: bytes, allowSpecial: isTrusted, addSpecial: false)
            report.seconds += processSeconds() - began
            report.byteCount += bytes.count
            report.compare(mine, expected, bytes, tokenizer)
        }
        report.finish(tokenizer, loading)
    }

    /// Time on a core: other programs do not count.
    private static func processSeconds() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    private static func compareTemplates(_ path: String) throws {
        let golden = try JSONValue.parse(MappedFile.map(path), name: path)
        var counts: [String: (same: Int, refused: Int, different: Int)] = [:]
        for render in golden["renders"]?.array ?? [] {
            guard let name = render["template"]?.string, let index = render["conversation"]?.int,
                let source = golden["templates"]?[name]?.string
            else { continue }
            let messages = try (golden["conversations"]?[index]?.array ?? []).map {
                try ChatMessage(json: $0)
            }
            var variables = JSONObject()
            if index >= golden["first_with_tools"]?.int ?? .max {
                variables["tools"] = golden["tools"]
            }
            let mine = Result {
                try ChatTemplate(source: source).render(
                    messages: messages, addGenerationPrompt: render["prompt"]?.bool ?? false,
                    bosToken: "<|im_start|>", eosToken: "<|im_end|>", variables: variables
                ).map(\.text).joined()
            }
            var count = counts[name] ?? (0, 0, 0)
            switch (mine, render["text"]?.string) {
            case (.success(let text), let expected?)
            where Array(text.unicodeScalars) == Array(expected.unicodeScalars):
                count.same += 1
            case (.failure, nil): count.refused += 1
            default:
                count.different += 1
                if count.different == 1 {
                    print("\(name), conversation \(index): \(mine)")
                    print("  reference: \(render["text"]?.string ?? render["error"]?.string ?? "")")
                }
            }
            counts[name] = count
        }
        for (name, count) in counts.sorted(by: { $0.key < $1.key }) {
            print(
                "\(name): \(count.same) same, \(count.refused) refused, \(count.different) differ")
        }
    }

    private static func word(_ bytes: [UInt8], _ at: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[at + $1]) << UInt32(8 * $1) }
    }

    private static func load(_ path: String) throws -> Tokenizer {
        if path.hasSuffix(".gguf") {
            let metadata = try GGUFFile(path: path).metadata
            guard let description = try TokenizerDescription(gguf: metadata) else {
                throw MartletError(.unsupported, "\(path) has no tokenizer")
            }
            return try Tokenizer(description)
        }
        let bytes = try MappedFile.map(path)
        return try Tokenizer(
            path.hasSuffix(".json")
                ? TokenizerDescription(tokenizerJSON: bytes)
                : TokenizerDescription(sentencePiece: bytes))
    }
}

/// What the comparison found.
private struct Report {
    var seconds = 0.0
    var byteCount = 0
    private var textCount = 0
    private var tokenCount = 0
    private var mismatchCount = 0

    mutating func compare(
        _ mine: [Int], _ expected: [Int], _ bytes: [UInt8], _ tokenizer: Tokenizer
    ) {
        textCount += 1
        tokenCount += mine.count
        guard mine != expected else { return }
        mismatchCount += 1
        guard mismatchCount <= 8 else { return }
        let at = zip(mine, expected).enumerated().first { $1.0 != $1.1 }?.offset
        let place = at ?? min(mine.count, expected.count)
        func show(_ ids: [Int]) -> String {
            let part = ids.dropFirst(max(place - 2, 0)).prefix(6)
            return part.map { id in
                "\(id)\(String(decoding: tokenizer.bytes(of: id), as: UTF8.self).debugDescription)"
            }.joined(separator: " ")
        }
        let before = mine.prefix(place).reduce(0) { $0 + tokenizer.bytes(of: $1).count }
        print("text \(textCount - 1), token \(place), byte about \(before):")
        print("  mine      \(show(mine))")
        print("  reference \(show(expected))")
        let around = bytes.dropFirst(max(before - 12, 0)).prefix(40)
        print("  text      \(String(decoding: around, as: UTF8.self).debugDescription)")
    }

    mutating func compare(
        _ mine: String, _ ids: [Int], _ expected: [UInt8], _ tokenizer: Tokenizer
    ) {
        textCount += 1
        byteCount += mine.utf8.count
        tokenCount += ids.count
        var stream = StreamingDetokenizer(tokenizer)
        let streamed = ids.map { stream.push($0) }.joined() + stream.finish()
        for (how, text) in [("decoded", mine), ("streamed", streamed)]
        where !text.utf8.elementsEqual(expected) {
            mismatchCount += 1
            guard mismatchCount <= 8 else { return }
            let at = zip(text.utf8, expected).enumerated().first { $1.0 != $1.1 }?.offset ?? 0
            func show(_ bytes: some Collection<UInt8>) -> String {
                String(decoding: bytes.dropFirst(max(at - 12, 0)).prefix(40), as: UTF8.self)
                    .debugDescription
            }
            print("text \(textCount - 1), \(how), byte \(at):")
            print("  mine      \(show(text.utf8))\n  reference \(show(expected))")
        }
    }

    func finish(_ tokenizer: Tokenizer, _ loading: Double) {
        let rate = (Double(byteCount) / 1e6 / max(seconds, 1e-9) * 10).rounded() / 10
        print(
            "\(mismatchCount) of \(textCount) texts differ; \(byteCount) bytes, \(tokenCount) tokens; "
                + "\(rate) MB/s on one core, loaded in \(Int(loading * 1000)) ms"
        )
    }
}
