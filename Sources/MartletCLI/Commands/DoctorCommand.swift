// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletCPU
import MartletCUDA

/// Says what this machine offers.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Prints what was found on this machine.")

    @Option(help: "text, json, csv or md.", completion: TableForm.completion)
    var output = "text"

    func run() throws {
        let form = try TableForm.parse(output)
        var table = Table(["item", "found"])
        table.add([.string("version"), .string(MartletProgram.configuration.version)])
        table.add([.string("cores"), .int(Parallel.coreCount)])
        table.add([.string("memory"), .string(Format.bytes(MachineMemory.byteCount))])
        let sets = CPUInstructionSet.available.map(\.rawValue).joined(separator: ", ")
        table.add([.string("instruction sets"), .string(sets)])
        table.add([.string("best"), .string(CPUInstructionSet.best.rawValue)])
        table.add([.string("engine cache"), .string(EngineCache.defaultFolder ?? "none")])
        for line in GPUProbe.lines() {
            table.add([.string(line.item), .string(line.found)])
        }
        let probe = try CPUProbe()
        let rates = [
            ("read bandwidth", try probe.readBandwidth(passes: 3), "GB/s"),
            ("int8 peak", probe.int8Peak(passes: 1), "Gop/s"),
            ("f32 peak", probe.floatPeak(passes: 1), "GFLOP/s"),
        ]
        for (name, rate, unit) in rates {
            table.add([.string(name), .string("\(Format.decimal(rate / 1e9, 1)) \(unit)")])
        }
        Console.line(table.rendered(form))
    }
}
