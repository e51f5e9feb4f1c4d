// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import CMartletDriver
import MartletCUDA
import Synchronization

/// A driver that computes nothing: it records calls, copies bytes between real memory, itself and for the kernel that
/// does, and can fail any call.
///
/// The functions of the table are C functions without a context, so its state is global, and suites that
/// use it run one test at a time.
enum FakeDriver {
    /// A kernel that was started.
    struct Launch: Sendable {
        let kernel: String
        let grid: [Int]
        let block: Int
        let firstArgument: UInt64
        let isCaptured: Bool
        let isDependent: Bool
    }

    /// Bytes to copy; from nowhere: the time, which passes by a millisecond.
    fileprivate struct Piece: Sendable {
        let name: String
        let to: UInt
        let from: UInt
        let count: Int
    }

    /// Bytes that were copied.
    struct Copy: Sendable {
        let call: Int
        let name: String
        let to: UInt
        let from: UInt
        let count: Int
    }

    struct State {
        var calls: [String] = []
        var copies: [Copy] = []
        /// Whether a piece of page-locked memory of so many bytes is refused.
        var refusesPinned: @Sendable (Int) -> Bool = { _ in false }
        var launches: [Launch] = []
        /// Number of the call to fail, counted from 1; releases are never failed.
        var failingCall: Int?
        var failedCall: String?
        var count = 0
        /// Pieces of memory, streams, events, modules and graphs that were not given back.
        var live: [UInt: String] = [:]
        /// Times that the context is retained.
        var contextCount = 0
        /// Pieces that were still there when the context went.
        var orphans = 0
        var functions: [String] = []
        var isCapturing = false
        var nanoseconds: UInt64 = 0
        /// What is copied when a graph runs, by the graph's handle; 0 while it is captured.
        fileprivate var pieces: [UInt: [Piece]] = [:]
        var isAllocating = false
        var nextHandle: UInt = 0x1000
        var freeBytes = 1 << 30
        var capability = 90
        var sharedMemoryPerBlock = 227 << 10
        /// Bytes of what kernels say of their launch; nil where none says anything.
        var factByteCount: Int? = 8
    }

    static let state = Mutex(State())

    /// Forgets everything.
    static func reset(failing call: Int? = nil) {
        state.withLock {
            $0 = State()
            $0.failingCall = call
        }
    }

    /// Notes a call; a code other than 0 if it is the one to fail.
    fileprivate static func enter(_ name: String, failure: Int32 = 719) -> Int32 {
        state.withLock { state in
            state.calls.append(name)
            state.count += 1
            guard state.count == state.failingCall else { return 0 }
            state.failedCall = name
            return failure
        }
    }

    fileprivate static func handle(_ what: String) -> UnsafeMutableRawPointer? {
        state.withLock { state in
            state.nextHandle += 16
            state.live[state.nextHandle] = what
            return UnsafeMutableRawPointer(bitPattern: state.nextHandle)
        }
    }

    fileprivate static func release(_ handle: UnsafeMutableRawPointer?) -> Int32 {
        let key = UInt(bitPattern: handle)
        return state.withLock { $0.live.removeValue(forKey: key) == nil ? 1 : 0 }
    }

    fileprivate static func allocate(_ bytes: Int, _ what: String) -> UnsafeMutableRawPointer {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: bytes, alignment: 256)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
        state.withLock { $0.live[UInt(bitPattern: memory)] = what }
        return memory
    }

    fileprivate static func free(_ memory: UnsafeMutableRawPointer?) -> Int32 {
        guard release(memory) == 0 else { return 1 }
        memory?.deallocate()
        return 0
    }

    fileprivate static func copy(
        _ name: String, _ to: UInt, _ from: UInt, _ count: Int
    ) -> Int32 {
        let result = enter(name)
        return result == 0
            ? enqueue([Piece(name: name, to: to, from: from, count: count)]) : result
    }

    /// What the kernel `copy_plain` does; the one kernel that is run.
    fileprivate static func copyPieces(_ arguments: UnsafeRawPointer) -> Int32 {
        let pieces = (0..<arguments.load(as: Int.self)).map { index in
            let words = (arguments + 8 + index * 24).assumingMemoryBound(to: UInt.self)
            return Piece(
                name: "copy_plain", to: words[1], from: words[0], count: Int(words[2]) * 4)
        }
        let stamp = (arguments + 8 + 8 * 24).load(as: UInt.self)
        return enqueue(
            stamp == 0 ? pieces : [Piece(name: "", to: stamp, from: 0, count: 0)] + pieces)
    }

    /// Copies, or notes what the graph that is captured will copy.
    private static func enqueue(_ pieces: [Piece]) -> Int32 {
        let isCapturing = state.withLock { state in
            if state.isCapturing { state.pieces[0, default: []] += pieces }
            return state.isCapturing
        }
        return isCapturing ? 0 : perform(pieces)
    }

    private static func perform(_ pieces: [Piece]) -> Int32 {
        for piece in pieces {
            guard let target = UnsafeMutableRawPointer(bitPattern: piece.to) else { return 700 }
            guard let source = UnsafeRawPointer(bitPattern: piece.from) else {
                let now = state.withLock { state in
                    state.nanoseconds += 1_000_000
                    return state.nanoseconds
                }
                target.storeBytes(of: now, as: UInt64.self)
                continue
            }
            target.copyMemory(from: source, byteCount: piece.count)
            state.withLock {
                $0.copies.append(
                    Copy(
                        call: $0.calls.count - 1, name: piece.name, to: piece.to, from: piece.from,
                        count: piece.count))
            }
        }
        return 0
    }

    /// What a graph does.
    fileprivate static func run(_ graph: UnsafeMutableRawPointer?) -> Int32 {
        let result = enter("cuGraphLaunch")
        return result == 0
            ? perform(state.withLock { $0.pieces[UInt(bitPattern: graph)] ?? [] }) : result
    }

    /// Gives a graph's pieces to what is made of it.
    fileprivate static func movePieces(
        from source: UnsafeMutableRawPointer?, to target: UnsafeMutableRawPointer?
    ) {
        state.withLock {
            $0.pieces[UInt(bitPattern: target)] = $0.pieces.removeValue(
                forKey: UInt(bitPattern: source))
        }
    }

    /// A device, of compute capability 9.0 if a test says nothing else.
    static var driver: CUDADriver {
        var table = martlet_cuda()
        addDevice(&table)
        addMemory(&table)
        addStreams(&table)
        addGraphs(&table)
        addModules(&table)
        return CUDADriver(table)
    }

    private static func addDevice(_ table: inout martlet_cuda) {
        table.cuInit = { _ in FakeDriver.enter("cuInit", failure: 100) }
        table.cuDriverGetVersion = { version in
            version?.pointee = 13000
            return 0
        }
        table.cuGetErrorName = { result, name in
            name?.pointee = result == 2 ? FakeText.outOfMemory : FakeText.launchFailed
            return 0
        }
        table.cuGetErrorString = { _, text in
            text?.pointee = FakeText.reason
            return 0
        }
        table.cuDeviceGetCount = { count in
            count?.pointee = 1
            return FakeDriver.enter("cuDeviceGetCount")
        }
        table.cuDeviceGet = { device, _ in
            device?.pointee = 0
            return FakeDriver.enter("cuDeviceGet")
        }
        table.cuDeviceGetName = { name, _, _ in
            name?[0] = 0x46
            return FakeDriver.enter("cuDeviceGetName")
        }
        table.cuDeviceGetAttribute = { value, attribute, _ in
            let (capability, shared) = FakeDriver.state.withLock {
                (Int32($0.capability), Int32($0.sharedMemoryPerBlock))
            }
            value?.pointee =
                [75: capability / 10, 76: capability % 10, 16: 132, 97: shared][attribute] ?? 0
            return FakeDriver.enter("cuDeviceGetAttribute")
        }
        table.cuDeviceTotalMem = { bytes, _ in
            bytes?.pointee = 2 << 30
            return FakeDriver.enter("cuDeviceTotalMem")
        }
        table.cuDevicePrimaryCtxRetain = { context, _ in
            let result = FakeDriver.enter("cuDevicePrimaryCtxRetain")
            if result == 0 {
                context?.pointee = UnsafeMutableRawPointer(bitPattern: 16)
                FakeDriver.state.withLock { $0.contextCount += 1 }
            }
            return result
        }
        table.cuDevicePrimaryCtxRelease = { _ in
            FakeDriver.state.withLock { state in
                state.contextCount -= 1
                if state.contextCount == 0 { state.orphans = state.live.count }
                return 0
            }
        }
        table.cuCtxSetCurrent = { _ in FakeDriver.enter("cuCtxSetCurrent") }
        table.cuMemGetInfo = { free, total in
            free?.pointee = FakeDriver.state.withLock { $0.freeBytes }
            total?.pointee = 2 << 30
            return FakeDriver.enter("cuMemGetInfo")
        }
    }

    private static func addMemory(_ table: inout martlet_cuda) {
        table.cuMemAlloc = { address, bytes in
            let result = FakeDriver.enter("cuMemAlloc", failure: 2)
            if result == 0 {
                address?.pointee = UInt64(UInt(bitPattern: FakeDriver.allocate(bytes, "memory")))
            }
            return result
        }
        table.cuMemFree = { FakeDriver.free(UnsafeMutableRawPointer(bitPattern: UInt($0))) }
        table.cuMemAllocHost = { address, bytes in
            var result = FakeDriver.enter("cuMemAllocHost", failure: 2)
            if FakeDriver.state.withLock({ $0.refusesPinned(bytes) }) { result = 2 }
            if result == 0 { address?.pointee = FakeDriver.allocate(bytes, "pinned memory") }
            return result
        }
        table.cuMemFreeHost = { FakeDriver.free($0) }
        table.cuMemcpyHtoDAsync = { to, from, bytes, _ in
            FakeDriver.copy("cuMemcpyHtoDAsync", UInt(to), UInt(bitPattern: from), bytes)
        }
        table.cuMemcpyDtoHAsync = { to, from, bytes, _ in
            FakeDriver.copy("cuMemcpyDtoHAsync", UInt(bitPattern: to), UInt(from), bytes)
        }
        table.cuMemcpyDtoDAsync = { to, from, bytes, _ in
            FakeDriver.copy("cuMemcpyDtoDAsync", UInt(to), UInt(from), bytes)
        }
        table.cuMemsetD8Async = { to, value, bytes, _ in
            let result = FakeDriver.enter("cuMemsetD8Async")
            if result == 0 {
                UnsafeMutableRawPointer(bitPattern: UInt(to))?.initializeMemory(
                    as: UInt8.self, repeating: value, count: bytes)
            }
            return result
        }
    }

    private static func addStreams(_ table: inout martlet_cuda) {
        table.cuStreamCreate = { stream, _ in
            let result = FakeDriver.enter("cuStreamCreate")
            if result == 0 { stream?.pointee = FakeDriver.handle("stream") }
            return result
        }
        table.cuStreamDestroy = { FakeDriver.release($0) }
        table.cuStreamSynchronize = { _ in FakeDriver.enter("cuStreamSynchronize") }
        table.cuStreamWaitEvent = { _, _, _ in FakeDriver.enter("cuStreamWaitEvent") }
        table.cuEventCreate = { event, _ in
            let result = FakeDriver.enter("cuEventCreate")
            if result == 0 { event?.pointee = FakeDriver.handle("event") }
            return result
        }
        table.cuEventRecordWithFlags = { _, _, flags in
            let isCapturing = FakeDriver.state.withLock { $0.isCapturing }
            let result = FakeDriver.enter("cuEventRecord")
            // In a graph only an external record is one that a host can wait for.
            return result == 0 && (flags == 1) != isCapturing ? 1 : result
        }
        table.cuEventQuery = { _ in FakeDriver.enter("cuEventQuery") }
        table.cuEventSynchronize = { _ in FakeDriver.enter("cuEventSynchronize") }
        table.cuEventElapsedTime = { milliseconds, _, _ in
            milliseconds?.pointee = 1
            return FakeDriver.enter("cuEventElapsedTime")
        }
        table.cuEventDestroy = { FakeDriver.release($0) }
    }

    private static func addGraphs(_ table: inout martlet_cuda) {
        table.cuStreamBeginCapture = { _, _ in
            let result = FakeDriver.enter("cuStreamBeginCapture")
            FakeDriver.state.withLock {
                $0.isCapturing = result == 0
                $0.pieces[0] = []
            }
            return result
        }
        table.cuStreamEndCapture = { _, graph in
            FakeDriver.state.withLock { $0.isCapturing = false }
            let result = FakeDriver.enter("cuStreamEndCapture")
            if result == 0 {
                graph?.pointee = FakeDriver.handle("graph")
                FakeDriver.movePieces(from: nil, to: graph?.pointee)
            }
            return result
        }
        table.cuGraphInstantiateWithFlags = { executable, graph, _ in
            let result = FakeDriver.enter("cuGraphInstantiate")
            if result == 0 {
                executable?.pointee = FakeDriver.handle("executable graph")
                FakeDriver.movePieces(from: graph, to: executable?.pointee)
            }
            return result
        }
        table.cuGraphLaunch = { graph, _ in FakeDriver.run(graph) }
        table.cuGraphExecDestroy = { FakeDriver.release($0) }
        table.cuGraphDestroy = { FakeDriver.release($0) }
    }

    private static func addModules(_ table: inout martlet_cuda) {
        table.cuModuleLoadDataEx = { module, _, _, _, _ in
            let result = FakeDriver.enter("cuModuleLoadDataEx", failure: 209)
            if result == 0 { module?.pointee = FakeDriver.handle("module") }
            return result
        }
        table.cuModuleUnload = { FakeDriver.release($0) }
        table.cuModuleGetFunction = { function, _, name in
            let result = FakeDriver.enter("cuModuleGetFunction")
            guard result == 0, let name else { return result }
            let text = String(cString: name)
            let index = FakeDriver.state.withLock { state in
                state.functions.append(text)
                return state.functions.count
            }
            function?.pointee = UnsafeMutableRawPointer(bitPattern: UInt(index))
            return 0
        }
        // Only kernels of prompts say something of their launch, as only they must.
        table.cuModuleGetGlobal = { address, bytes, _, name in
            let result = FakeDriver.enter("cuModuleGetGlobal")
            let text = name.map { String(cString: $0) } ?? ""
            guard result == 0, let count = FakeDriver.state.withLock({ $0.factByteCount }),
                text.hasPrefix("linear_prefill") || text.hasPrefix("attention_prefill")
            else { return result == 0 ? 500 : result }
            address?.pointee = UInt64(UInt(bitPattern: FakeText.facts))
            bytes?.pointee = count
            return 0
        }
        table.cuFuncSetAttribute = { _, attribute, value in
            let most = FakeDriver.state.withLock { $0.sharedMemoryPerBlock }
            // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            if attribute == 8, value > most { return 1 }
            return FakeDriver.enter("cuFuncSetAttribute")
        }
        table.cuFuncGetAttribute = { _, _, _ in FakeDriver.enter("cuFuncGetAttribute") }
        table.cuLaunchKernelEx = { config, function, parameters, _ in
            let result = FakeDriver.enter("cuLaunchKernelEx")
            guard result == 0, let config = config?.pointee, let argument = parameters?[0] else {
                return result
            }
            let index = Int(bitPattern: function) - 1
            let first = argument.load(as: UInt64.self)
            let kernel = FakeDriver.state.withLock { state in
                state.functions.indices.contains(index) ? state.functions[index] : "?"
            }
            guard kernel != "copy_plain" else { return FakeDriver.copyPieces(argument) }
            FakeDriver.state.withLock { state in
                state.launches.append(
                    Launch(
                        kernel: kernel,
                        grid: [Int(config.grid_x), Int(config.grid_y), Int(config.grid_z)],
                        block: Int(config.block_x), firstArgument: first,
                        isCaptured: state.isCapturing, isDependent: config.attribute_count == 1))
            }
            return 0
        }
        table.cuTensorMapEncodeTiled = { _, _, _, _, _, _, _, _, _, _, _, _ in
            FakeDriver.enter("cuTensorMapEncodeTiled")
        }
    }
}

/// Texts and numbers that live as long as the process, as the driver's do.
private enum FakeText {
    nonisolated(unsafe) static let outOfMemory = text("CUDA_ERROR_OUT_OF_MEMORY")
    nonisolated(unsafe) static let launchFailed = text("CUDA_ERROR_LAUNCH_FAILED")
    nonisolated(unsafe) static let reason = text("as the test wants")
    /// Shared memory and threads of a block.
    nonisolated(unsafe) static let facts: UnsafeMutablePointer<UInt32> = {
        let numbers = UnsafeMutablePointer<UInt32>.allocate(capacity: 2)
        numbers.initialize(to: 96 << 10)
        (numbers + 1).initialize(to: 384)
        return numbers
    }()

    private static func text(_ string: StaticString) -> UnsafePointer<CChar> {
        UnsafeRawPointer(string.utf8Start).assumingMemoryBound(to: CChar.self)
    }
}
