// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletTokenizer
import Testing

#if os(Linux)
#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#endif

/// Memory of this process, as the kernel counts it.
private enum ProcessMemory {
    /// A row of `/proc/self/status` in bytes.
    static func bytes(_ key: String) -> Int {
        guard let file = fopen("/proc/self/status", "r") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, 256, file) != nil {
            let text = String(
                decoding: line.prefix { $0 != 0 }.map { UInt8(truncatingIfNeeded: $0) },
                as: UTF8.self)
            guard text.hasPrefix(key) else { continue }
            return (Int(text.filter(\.isNumber)) ?? 0) * 1024
        }
        return 0
    }

    /// Runs, and ends the process with success if the peak stays within twice the input and 64 MB.
    static func expectPeak(within inputBytes: Int, _ body: () throws -> Void) {
        // Tables that live on are made first.
        _ = try? TokenizerDescription(tokenizerJSON: ByteView(Array("{}".utf8)))
        if let file = fopen("/proc/self/clear_refs", "w") {
            fputs("5", file)
            fclose(file)
        }
        let before = bytes("VmRSS:")
        do {
            try body()
        } catch {
            guard error is MartletError else { exit(3) }
            print("\(error)")
        }
        let peak = bytes("VmHWM:") - before
        print("peak \(peak >> 20) MiB over an input of \(inputBytes >> 10) KiB")
        exit(peak <= 2 * inputBytes + 64_000_000 ? 0 : 2)
    }

    static func readJSON(_ text: [UInt8]) {
        let view = ByteView(text)
        expectPeak(within: text.count) {
            _ = try Tokenizer(TokenizerDescription(tokenizerJSON: view))
        }
    }
}

/// What hostile files may take: at most twice their size and 64 MB, each read in its own process.
@Suite(.serialized) struct HostileMemoryTests {
    @Test func wideArraysAreSteppedOver() async {
        await #expect(processExitsWith: .success) {
            ProcessMemory.readJSON(
                Array("{\"x\": [[]".utf8)
                    + [[UInt8]](repeating: Array(",[]".utf8), count: 5_000_000)
                    .joined() + Array("]}".utf8))
        }
    }

    @Test func aWideComponentIsRefused() async {
        await #expect(processExitsWith: .success) {
            ProcessMemory.readJSON(
                Array("{\"decoder\": [[]".utf8)
                    + [[UInt8]](repeating: Array(",[]".utf8), count: 300_000).joined()
                    + Array("]}".utf8))
        }
    }

    @Test func manyTokens() async {
        await #expect(processExitsWith: .success) {
            var text = Array("{\"model\": {\"vocab\": {\"\": 0".utf8)
            for id in 1..<(1 << 20) { text += ",\"\(String(id, radix: 36))\":\(id)".utf8 }
            text += "}, \"merges\": []}, \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}".utf8
            ProcessMemory.readJSON(text)
        }
    }

    @Test func tooManyTokensAreRefused() async {
        await #expect(processExitsWith: .success) {
            var text = Array("{\"model\": {\"vocab\": {\"\": 0".utf8)
            for _ in 0..<3_000_000 { text += ",\"a\":1".utf8 }
            text += "}}}".utf8
            ProcessMemory.readJSON(text)
        }
    }

    @Test func manyMerges() async {
        await #expect(processExitsWith: .success) {
            var text = Array(
                "{\"model\": {\"vocab\": {\"a\":0,\"aa\":1}, \"merges\": [\"a a\"".utf8)
            for _ in 1..<(1 << 20) { text += ",\"a a\"".utf8 }
            text += "]}, \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}".utf8
            ProcessMemory.readJSON(text)
        }
    }

    @Test func manyAddedTokens() async {
        await #expect(processExitsWith: .success) {
            var text = Array("{\"added_tokens\": [{\"id\":0,\"content\":\"a\"}".utf8)
            for _ in 0..<1_000_000 { text += ",{\"id\":0,\"content\":\"a\"}".utf8 }
            text += "]}".utf8
            ProcessMemory.readJSON(text)
        }
    }

    /// Every part of every piece is a piece: as many merges as can be.
    @Test func piecesWithManyParts() async {
        await #expect(processExitsWith: .success) {
            var bytes: [UInt8] = []
            func piece(_ text: [UInt8]) {
                bytes += [0x0A, UInt8(text.count + 3) & 127 | 128, UInt8((text.count + 3) >> 7)]
                bytes += [0x0A, UInt8(text.count & 127) | 128, UInt8(text.count >> 7)] + text
            }
            for letter in UInt8(ascii: "A")...UInt8(ascii: "z") {
                for length in 1...250 { piece([UInt8](repeating: letter, count: length)) }
            }
            bytes += [0x12, 2, 0x18, 2]
            let view = ByteView(bytes)
            ProcessMemory.expectPeak(within: bytes.count) {
                _ = try Tokenizer(TokenizerDescription(sentencePiece: view))
            }
        }
    }

    @Test func templatesThatGrow() async {
        await #expect(processExitsWith: .success) {
            let sources = [
                "{% set l = [] %}{% for i in range(99999) %}{% set _ = l.append('a' * 4000000) %}{% endfor %}",
                "{% set l = [] %}{% for i in range(99999) %}{% set _ = l.append([0] * 190000) %}{% endfor %}",
                "{% set l = [] %}{% for i in range(99999) %}{% set _ = l.append([[], [], {}]) %}{% endfor %}",
                "{{ range(99999) | map('center', 4000000) | list }}",
                "{{ ['a' * 4000000] * 1000 | map('upper') | list | length }}",
                "{% set s = 'a' * 4000000 %}{{ s.split('a') }}",
                "{% set s = 'a' * 4000000 %}{{ s | list }}",
                "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
                "{% macro m() %}{{ 'a' * 4000000 }}{% endmacro %}{{ m() }}{{ m() }}{{ m() }}",
                "{% set ns = namespace() %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
                String(repeating: "{{a}}", count: 50_000),
                String(repeating: "{{a}}", count: 5_000_000),
            ]
            let largest = sources.map(\.utf8.count).max() ?? 0
            ProcessMemory.expectPeak(within: largest) {
                for source in sources {
                    do {
                        let template = try ChatTemplate(source: source)
                        _ = try template.render(variables: JSONObject())
                    } catch { guard error is MartletError else { exit(3) } }
                }
            }
        }
    }
}
#endif
