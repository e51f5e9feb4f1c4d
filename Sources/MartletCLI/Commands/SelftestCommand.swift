// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletBackend
import MartletCPU
import MartletCUDA
import MartletConformance
import MartletHub

/// Checks the kernels on the user's own machine.
struct SelftestCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "selftest",
        abstract: "Checks every kernel of a device against the reference.",
        discussion: """
            Runs the conformance suite: each op with each type, weight scheme and shape, on every \
            kernel that accepts it, against a slow exact interpreter; kernels of one op must agree \
            bit for bit. Ends with exit code 1 if a check fails.
            """)

    @Option(help: "Device to check: cpu or cuda.", completion: .list(["cpu", "cuda"]))
    var device = "cpu"
    @Option(
        help: "Instruction set to check; may be repeated (default: all of this machine).",
        completion: .list(CPUInstructionSet.allCases.map(\.rawValue)))
    var isa: [String] = []
    @Option(help: "Op to check, such as linear; may be repeated (default: all).")
    var op: [String] = []
    @Option(
        help: """
            Check of this name, as --details prints it, to repeat it alone; may be repeated \
            (default: all).
            """)
    var check: [String] = []
    @Option(
        parsing: .unconditional,
        help: "Threads of a CPU's kernels, or checks of a GPU at once (default: one per core).")
    var threads: Int?
    @Option(help: "GPU code to check, such as compute_80 (default: the GPU's own).")
    var gpuCode: String?
    @Option(
        parsing: .unconditional,
        help: """
            Check every N-th case of each op, and the sampler in short, as for a run under \
            compute-sanitizer (default: 1).
            """
    )
    var every: Int?
    @Option(
        help:
            "Seed of all inputs, to repeat a run (default: another one in each run, which is told)."
    )
    var seed: UInt64?
    @Flag(help: "One row for each check instead of one for each op.")
    var details = false
    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"

    func run() async throws {
        let form = try TableForm.parse(output)
        try LimitOptions.require(threads, atLeast: 1, "--threads")
        try LimitOptions.require(every, atLeast: 1, "--every")
        if device == "cpu" {
            try GivenFlags.refuse(["--gpu-code"], "on the CPU", mend: "Add --device cuda")
        }
        if let gpuCode { try CUDACatalog.check(code: gpuCode) }
        let seed = seed ?? UInt64.random(in: 1..<1 << 32)
        let suites = try suites(seed)
        var table = details ? SelftestTable.details : SelftestTable.summary
        // A check takes one thread of the host, its kernels on a CPU aside: several keep a GPU busier.
        let width = device == "cuda" ? threads ?? Parallel.coreCount : 1
        var counts = (checks: 0, failures: 0, refusals: 0)
        for (label, suite) in suites {
            let ops = try chosenOps(suite)
            let count = suite.cases.count { ops.contains($0.op) && isChosen($0.name) }
            let meter = ProgressMeter(label, total: count)
            var done = 0
            for name in ops {
                let clock = ContinuousClock()
                let start = clock.now
                let before = done
                var report = await suite.run(
                    width: width, where: { $0.op == name && isChosen($0.name) }
                ) {
                    done = before + $0
                    meter.show(done)
                }
                if name == "sample" {
                    report.entries += await suite.runSampler(where: isChosen).entries
                }
                for failure in report.failures { Console.error("\(failure)") }
                counts.checks += report.entries.count
                counts.failures += report.failures.count
                counts.refusals += report.refusals.count
                let seconds = (clock.now - start).seconds
                table.add(report, device: label, op: name, seconds: seconds)
                // A log without a bar shows what was checked before the program was cut off.
                if !Console.isInteractive {
                    Console.error(
                        "\(label) \(name): \(report.passedCount) of \(report.entries.count) passed, "
                            + "\(report.failures.count) failed (\(Int(seconds)) s)")
                }
            }
            meter.clear()
        }
        Console.line(table.table.rendered(form))
        let summary =
            "\(counts.checks - counts.failures - counts.refusals) of \(counts.checks) checks passed"
        guard counts.failures == 0 else {
            throw MartletError(
                .checkFailed, "\(summary), \(counts.failures) failed, seed \(seed)",
                mend: "Report the lines above with what martlet doctor prints")
        }
        Console.error(
            summary + (counts.refusals > 0 ? ", \(counts.refusals) have no kernel" : "")
                + ", seed \(seed)")
    }

    /// What is checked, with its name.
    private func suites(_ seed: UInt64) throws -> [(String, ConformanceSuite)] {
        switch device {
        case "cpu": return try instructionSets().map { ("cpu-\($0.rawValue)", suite($0, seed)) }
        case "cuda":
            let device = try CUDADevice(CUDADriver.required())
            let code = gpuCode.map { KernelArchitecture($0) }
            try code?.require(capability: device.capability, of: device.name)
            return [
                (
                    "cuda-\(code?.name ?? "sm_\(device.capability)")",
                    try gpuSuite(device, code, seed)
                )
            ]
        default:
            throw MartletError(
                .invalidArgument, "--device \(device) is not known", mend: "Devices: cpu, cuda")
        }
    }

    private func gpuSuite(
        _ device: CUDADevice, _ code: KernelArchitecture?, _ seed: UInt64
    ) throws -> ConformanceSuite {
        let images = KernelImages(
            cacheFolder: EngineCache.defaultFolder.map { $0 + "/kernels" })
        let suite = gpuSuite(device, code, images, seed)
        // Thousands of small kernels: compiled on all cores at once, found in the cache later.
        let own = KernelArchitecture.candidates(capability: device.capability).first
        if let target = (code ?? own)?.limited(to: device.sharedMemoryPerBlock) {
            let plans = try suite.plans { (op.isEmpty || op.contains($0.op)) && isChosen($0.name) }
            let modules = Set(
                try plans.flatMap { try CUDACatalog.modules(of: [$0], for: target) })
            _ = try images.images(Array(modules), for: target)
        }
        return suite
    }

    private func gpuSuite(
        _ device: CUDADevice, _ code: KernelArchitecture?, _ images: KernelImages, _ seed: UInt64
    ) -> ConformanceSuite {
        ConformanceSuite(
            catalog: CUDACatalog(), agreesAlone: false, every: every ?? 1, seed: seed
        ) {
            plan, parameters, limits in
            var options = CUDAOptions(limits: limits, pageCount: 32)
            options.architecture = code
            options.images = images
            options.poisonsBuffers = true
            return try CUDAExecutor(
                device.driver, plans: [plan], parameters: parameters, options: options)
        }
    }

    private func suite(_ set: CPUInstructionSet, _ seed: UInt64) -> ConformanceSuite {
        ConformanceSuite(catalog: CPUCatalog(), every: every ?? 1, seed: seed) {
            [threads] plan, parameters, limits in
            var options = CPUOptions(limits: limits, pageCount: 64, threadCount: threads)
            options.instructionSet = set
            options.poisonsBuffers = true
            return try CPUExecutor(plans: [plan], parameters: parameters, options: options)
        }
    }

    private func instructionSets() throws -> [CPUInstructionSet] {
        let available = CPUInstructionSet.available
        guard !isa.isEmpty else { return available }
        return try isa.map { name in
            guard let set = available.first(where: { $0.rawValue == name }) else {
                throw MartletError(
                    .invalidArgument, "instruction set '\(name)' is not available",
                    mend: "Available: \(available.map(\.rawValue).joined(separator: ", "))")
            }
            return set
        }
    }

    private func isChosen(_ name: String) -> Bool { check.isEmpty || check.contains(name) }

    /// Ops with checks to run.
    private func chosenOps(_ suite: ConformanceSuite) throws -> [String] {
        let known = Set(suite.cases.map(\.op)).sorted()
        for name in op where !known.contains(name) {
            throw MartletError(
                .invalidArgument, "there is no check of an op '\(name)'",
                mend: EditDistance.nearest(name, among: known).map { "Did you mean '\($0)'?" }
                    ?? "Ops: \(known.joined(separator: ", "))")
        }
        let all =
            suite.cases.map { (name: $0.name, op: $0.op) }
            + suite.samplerNames.map { (name: $0, op: "sample") }
        let names = all.filter { op.isEmpty || op.contains($0.op) }
        for name in check where !names.contains(where: { $0.name == name }) {
            throw MartletError(
                .invalidArgument, "there is no check '\(name)'",
                mend: EditDistance.nearest(name, among: names.map(\.name)).map {
                    "Did you mean '\($0)'?"
                } ?? "martlet selftest --op OP --details prints their names")
        }
        let chosen = Set(names.filter { isChosen($0.name) }.map(\.op))
        return (op.isEmpty ? known : op).filter { chosen.contains($0) }
    }
}

/// What a selftest found, by op or by check.
struct SelftestTable {
    private(set) var table: Table
    private let isDetailed: Bool

    /// A row for each op; errors are shares of what each check allows.
    static var summary: SelftestTable {
        SelftestTable(
            table: Table([
                "device", "op", "checks", "passed", "failed", "no kernel", "largest error",
                "seconds",
            ]), isDetailed: false)
    }

    /// A row for each check.
    static var details: SelftestTable {
        SelftestTable(
            table: Table(["device", "check", "kernel", "result", "error", "allowed", "reason"]),
            isDetailed: true)
    }

    /// Adds what became of an op.
    mutating func add(_ report: ConformanceReport, device: String, op: String, seconds: Double) {
        guard isDetailed else {
            let share = report.entries.map {
                $0.largestError / max($0.tolerance, .leastNormalMagnitude)
            }
            table.add([
                .string(device), .string(op), .int(report.entries.count),
                .int(report.passedCount), .int(report.failures.count),
                .int(report.refusals.count), Self.percent(share.max() ?? 0),
                .double((seconds * 100).rounded() / 100),
            ])
            return
        }
        for entry in report.entries {
            let (result, reason) =
                switch entry.outcome {
                case .passed: ("passed", "")
                case .failed(let reason): ("failed", reason)
                case .refused(let reason): ("no kernel", reason)
                }
            table.add([
                .string(device), .string(entry.name), .string(entry.family), .string(result),
                Self.number(entry.largestError), .double(entry.tolerance), .string(reason),
            ])
        }
    }

    private static func percent(_ share: Double) -> JSONValue {
        .string(share.isFinite ? "\(Format.decimal(share * 100, 1)) %" : "not finite")
    }

    private static func number(_ value: Double) -> JSONValue {
        value.isFinite ? .double(value) : .string("not finite")
    }
}
