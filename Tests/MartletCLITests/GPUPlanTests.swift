// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import Testing

/// `plan --device cuda`, on machines without a GPU.
@Suite struct GPUPlanTests {
    private func plan(_ flags: [String]) throws -> (memory: [String: Double], bounds: [Int]) {
        let program = Program()
        defer { program.remove() }
        let result = program.run(
            [
                "plan", "--preset", "baichuan2-7b", "--device", "cuda", "--dtype", "bf16",
                "--kv-dtype", "bf16", "--output", "json",
            ] + flags)
        #expect(result.code == 0, "\(result.error)")
        let json = try JSONValue.parse(
            ByteView(Array(result.output.utf8)), name: "output")
        var memory: [String: Double] = [:]
        for row in json["memory"]?.array ?? [] {
            memory[row["part"]?.string ?? ""] = row["MB"]?.double
        }
        return (memory, (json["bounds"]?.array ?? []).compactMap { $0["value"]?.int })
    }

    /// Parts add up, and weights are those of the shape.
    @Test func partsAddUp() throws {
        let (memory, bounds) = try plan(
            ["--gpu", "h100", "--max-context", "2048", "--max-batch-size", "16"])
        let all = try #require(memory["all"])
        let sum = memory.reduce(0) { $0 + ($1.key == "all" ? 0 : $1.value) }
        #expect(abs(sum - all) < 1)
        let weights = try #require(memory["weights"])
        #expect((14_900...15_200).contains(weights), "7.5e9 numbers of 2 bytes")
        #expect(Set(memory.keys).isSuperset(of: ["activations", "driver", "KV cache"]))
        // 16 x 2,048 tokens of 524,288 bytes, and 2 pages of 64 more for each.
        #expect(abs((memory["KV cache"] ?? 0) - 16 * (2048 + 128) * 0.524288) < 1)
        #expect(bounds.count == 3 && bounds[0] == 16)
    }

    /// A smaller GPU holds fewer requests, int8 weights leave more room, and memory says what bounds them.
    @Test func memoryBoundsBatchAndContext() throws {
        let flags = ["--max-context", "4096", "--max-batch-size", "64"]
        let large = try plan(flags + ["--gpu", "h100"])
        let small = try plan(flags + ["--gpu", "a100-40gb"])
        let coded = try plan(
            flags + [
                "--gpu", "a100-40gb", "--quantize", "int8", "--quantize-head", "int8",
                "--quantize-embedding", "int8",
            ])
        // 76 and 38 GB at 0.9, less weights: 28 and 10 requests of 2.15 GB, 14 with half of the weights.
        #expect((27...29).contains(large.bounds[0]), "\(large.bounds)")
        #expect((9...11).contains(small.bounds[0]), "\(small.bounds)")
        #expect((13...15).contains(coded.bounds[0]), "\(coded.bounds)")
        #expect(large.bounds[1] >= large.bounds[0])
        // The longest context of 64 requests is what their memory holds.
        #expect((1500...1900).contains(large.bounds[2]), "\(large.bounds)")
        #expect(large.bounds[2] % 64 == 0)
        let half = try plan(flags + ["--gpu", "h100", "--memory-fraction", "0.45"])
        #expect(half.bounds[0] < large.bounds[0])
    }

    @Test(
        arguments: [
            (["--device", "cuda", "--gpu", "voodoo2"], 2, "a100-80gb"),
            (["--gpu", "h100"], 2, "--gpu has no effect on the CPU"),
            (["--gpu", "h100", "--device", "gpu"], 2, "--device gpu is not known"),
            (["--gpu", "h100", "--device", "CUDA"], 2, "--device CUDA is not known"),
            (
                ["--device", "cuda", "--gpu", "a10", "--force-sm", "90"], 5,
                "does not run on a10, whose compute capability is 8.6. Use compute_80 (--force-sm 80)"
            ),
            (
                [
                    "--device", "cuda", "--gpu", "a10", "--dtype", "bf16", "--memory-fraction",
                    "1e-300",
                ],
                6, "Raise --memory-fraction"
            ),
            (
                ["--preset", "baichuan2-13b", "--device", "cuda", "--gpu", "a10"], 6,
                "Use --quantize int8 or int4, or a larger GPU"
            ),
            (
                [
                    "--device", "cuda", "--gpu", "h100", "--dtype", "bf16", "--kv-cache-memory",
                    "500GB",
                ], 6, "Lower --kv-cache-memory to at most "
            ),
            (
                ["--device", "cuda", "--gpu", "l4", "--memory-fraction", "0.5"], 6,
                "leave no room"
            ),
        ] as [([String], Int32, String)])
    func mistakesAreNamed(flags: [String], code: Int32, words: String) {
        let program = Program()
        defer { program.remove() }
        let preset = flags.contains("--preset") ? [] : ["--preset", "baichuan2-7b"]
        let result = program.run(["plan"] + preset + flags)
        #expect(result.code == code, "\(result.error)")
        #expect(result.error.contains(words))
    }
}
