// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCUDA
import MartletCore
import MartletTestSupport
import Synchronization
import Testing

extension FakeDriverTests {
    /// A linear of many rows is one launch, of the kind for their count: up to 1,024 rows all blocks of an H100 share
    /// the tiles that are left, above each has tiles of its own.
    @Test(arguments: [66, 128, 129, 193, 257, 1024, 1025])
    func oneKindOfTileForACount(rows: Int) async throws {
        FakeDriver.reset()
        let model = try FakeModel(dtype: .bf16, headDim: 64)
        let images = try FakeModel.images(of: model.compiled.plans, for: "sm_90a")
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
        let prefill = launches.filter { $0.kernel == "linear_prefill" }
        // Seven linears of the model have sizes and types that the kernel takes, its head with f32 results among them.
        #expect(prefill.count == 7)
        for launch in prefill {
            #expect(rows <= 1024 ? launch.grid == [132, 1, 1] : launch.grid[0] < 132)
        }
    }
}
