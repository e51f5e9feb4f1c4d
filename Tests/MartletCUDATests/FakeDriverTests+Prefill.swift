// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCore
import MartletTestSupport
import Synchronization
import Testing

extension FakeDriverTests {
    /// What a step of one request with so many tokens starts.
    private func launches(
        _ rows: Int, _ dtype: DType, _ architecture: String
    ) async throws -> [FakeDriver.Launch] {
        FakeDriver.reset()
        let model = try FakeModel(dtype: dtype, headDim: 64)
        let images = try FakeModel.images(of: model.compiled.plans, for: architecture)
        let executor = try model.executor {
            $0.images = images
            $0.limits.maxTokens = 1040
            $0.limits.maxLogitRows = 1040
            $0.limits.maxContext = 1040
            $0.pageCount = 20
        }
        var runner = StepRunner(executor)
        let before = FakeDriver.state.withLock { $0.launches.count }
        _ = try await runner.run([StepPart(0, (0..<rows).map { Int32($0 % 8) })])
        let launches = FakeDriver.state.withLock { Array($0.launches.dropFirst(before)) }
        return launches
    }

    /// A linear of many rows is one launch, of the kind for their count: up to 1,024 rows all blocks of an H100 share
    /// the tiles that are left, above each has tiles of its own.
    @Test(arguments: [
        66, 80, 81, 97, 112, 128, 129, 161, 176, 193, 208, 209, 224, 257, 448, 1024, 1025,
    ])
    func oneKindOfTileForACount(rows: Int) async throws {
        let launches = try await launches(rows, .bf16, "sm_90a")
        let prefill = launches.filter { $0.kernel == "linear_prefill" }
        // Seven linears of the model have sizes and types that the kernel takes, its head with f32 results among them.
        #expect(prefill.count == 7)
        for launch in prefill {
            #expect(rows <= 1024 ? launch.grid == [132, 1, 1] : launch.grid[0] < 132)
        }
    }

    /// A norm between two linears of many rows in bf16 has no kernel on an H100: of five norms those behind the embedding,
    /// in front of the f32 head, and behind a linear whose inputs fill no boxes of 64 have one.
    @Test(
        arguments: [
            (DType.bf16, "sm_90a", 20, 3), (.bf16, "sm_90a", 135, 3), (.bf16, "sm_90a", 1025, 5),
            (.f16, "sm_90a", 135, 5), (.bf16, "compute_80", 135, 5), (.bf16, "sm_90a", 5, 3),
            (.bf16, "sm_90a", 4, 0), (.bf16, "compute_80", 8, 0),
        ] as [(DType, String, Int, Int)])
    func normsBetweenLinearsHaveNoKernel(
        dtype: DType, architecture: String, rows: Int, expected: Int
    ) async throws {
        let launches = try await launches(rows, dtype, architecture)
        #expect(launches.count { $0.kernel == "norm_prefill" } == expected)
    }

    /// Answers in front of a prompt have their attention from the kernel of decode steps, the prompt from its own.
    @Test func answersAreApartFromPrompts() async throws {
        FakeDriver.reset()
        let model = try FakeModel(dtype: .bf16, headDim: 64)
        let images = try FakeModel.images(of: model.compiled.plans, for: "sm_90a")
        let executor = try model.executor { $0.images = images }
        var runner = StepRunner(executor)
        _ = try await runner.run([StepPart(0, [1, 2]), StepPart(1, [3])])
        let before = FakeDriver.state.withLock { $0.launches.count }
        _ = try await runner.run([StepPart(0, [1]), StepPart(1, [3]), StepPart(2, [4, 5, 6])])
        let launches = FakeDriver.state.withLock { Array($0.launches.dropFirst(before)) }
        let (answers, prompts) = (
            launches.filter { $0.kernel == "attention_decode" },
            launches.filter { $0.kernel == "rotate_prefill" }
        )
        #expect(answers.count == 2 && answers.allSatisfy { $0.grid[2] == 2 })
        #expect(prompts.count == 2 && prompts.allSatisfy { $0.grid[0] == 3 })
        // Answers' behind prompts': they wait for no more than those have waited for.
        let layer = ["rotate_prefill", "attention_prefill", "attention_decode"]
        #expect(launches.map(\.kernel).filter(layer.contains) == layer + layer)
        let address = try #require(launches.last?.firstArgument)
        let counts = try #require(UnsafePointer<Int32>(bitPattern: UInt(address)))
        #expect((0..<5).map { counts[$0] } == [5, 3, 5, 0, 2])
        withExtendedLifetime(executor) {}
    }
}
