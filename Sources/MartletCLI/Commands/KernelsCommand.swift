// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletCUDA
import MartletCore

/// Lists what a GPU engine would hold: for scripts/check-kernels, which compiles it.
struct KernelsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kernels",
        abstract: "Lists the kernels of a GPU engine: a source and its definitions a line.",
        shouldDisplay: false)

    @OptionGroup var choice: ModelChoice
    @Option(
        name: .customLong("gpu-code"), help: "Chip, such as sm_90a.",
        completion: .list(CUDACatalog.allCode))
    var gpuCode: String
    @OptionGroup var modelOptions: ModelOptions

    func run() async throws {
        let options = try modelOptions.loadOptions()
        guard options.device == .cuda else {
            throw MartletError(
                .invalidArgument, "an engine for a CPU holds no kernels", mend: "Add --device cuda")
        }
        try CUDACatalog.check(code: gpuCode)
        let found = try await choice.find()
        guard !found.isEngine else {
            throw MartletError(
                .unsupported, "\(found.path) is an engine", mend: "Name the checkpoint or a preset")
        }
        let plans = try found.builder(options).0.programs().map(\.emitted.plan)
        let modules = try CUDACatalog.heldModules(of: plans, for: KernelArchitecture(gpuCode))
        for line in Set(modules.map(\.description)).sorted() { Console.line(line) }
    }
}
