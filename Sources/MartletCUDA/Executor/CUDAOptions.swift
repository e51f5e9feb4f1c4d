// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

package import MartletBackend
import MartletCore

/// How an executor on a GPU is set up.
package struct CUDAOptions: Sendable {
    /// Largest step.
    package var limits: StepLimits
    /// Pages of the KV arena; nil takes them from `kvByteCount`.
    package var pageCount: Int?
    /// Bytes of the KV arena; nil takes what the memory fraction leaves.
    package var kvByteCount: Int?
    /// Most bytes of the KV arena where no size is given; nil for no limit.
    package var kvByteLimit: Int?
    /// Part of the free device memory that may be used where no size is given.
    package var memoryFraction = 0.9
    /// Most bytes of page-locked host memory for KV pages of paused requests; 0 for no swapping.
    ///
    /// As many pages as the arena has at most, and fewer where the system locks less.
    package var hostByteCount = 0
    /// Whether loading fails where not a single page of the host can be locked.
    package var needsHostPages = false
    /// Slots of sampling state.
    package var stateSlotCount: Int
    /// Number of the GPU.
    package var ordinal = 0
    /// Architecture whose code to run, such as `compute_80`; nil for the GPU's own.
    package var architecture: KernelArchitecture?
    /// Whether one kernel does an operation whatever the step holds, so that a request's tokens do not depend on
    /// the requests beside it, on how its prompt is cut, or on what is known of its beginning.
    package var isDeterministic = false
    /// How many of so many requests of one token, in front of all others, are computed apart: with one kernel for
    /// every row none is.
    func singles(_ count: Int) -> Int { isDeterministic ? 0 : count }
    /// Whether decode steps run as graphs.
    package var usesGraphs = true
    /// How long threads look for the end of a step before they sleep; by default a decode step of 15 GB where there are cores.
    ///
    /// A core that sleeps through a step has cold caches: the engine's thread then takes 40 to 44 us for the next one, else 12 to
    /// 16 (a 7B model in int4 on an H100, 1.6 ms a step).
    package var spinDuration: Duration = Parallel.coreCount >= 4 ? .milliseconds(5) : .zero
    /// Whether buffers are filled with NaN before each step, to find reads of what was not written.
    package var poisonsBuffers = false
    /// Architecture that launches are made for, known once the device is.
    var target = KernelArchitecture("sm_90a")
    /// Where compiled kernels come from.
    package var images = KernelImages()

    /// Options with defaults; set the rest by name.
    package init(
        limits: StepLimits, pageCount: Int? = nil, kvByteCount: Int? = nil,
        stateSlotCount: Int? = nil
    ) {
        self.limits = limits
        self.pageCount = pageCount
        self.kvByteCount = kvByteCount
        self.stateSlotCount = stateSlotCount ?? limits.maxRequests
    }
}
