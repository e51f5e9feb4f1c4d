// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet
import MartletBackend
import MartletCUDA

/// Builds an engine file.
struct BuildCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build", abstract: "Compiles a model to one engine file.",
        aliases: ["convert", "quantize"])

    @OptionGroup var choice: ModelChoice
    @Option(
        name: [.customShort("o"), .long], help: "Engine file to write.",
        completion: .file(extensions: ["martlet"]))
    var output: String
    @Option(
        help: "Device the engine is for; may be repeated (default: this machine's).",
        completion: .list(CatalogList.builtIn.all.map(\.target)))
    var target: [String] = []
    @Option(
        name: .customLong("gpu-code"),
        help: """
            Chip that a GPU engine holds kernels for, such as sm_90a, or none; may be repeated \
            (default: all where NVRTC is found).
            """,
        completion: .list(CUDACatalog.allCode + ["none"]))
    var gpuCode: [String] = []
    @OptionGroup var modelOptions: ModelOptions

    func run() async throws {
        var options = try modelOptions.loadOptions()
        options.targets = target
        options.gpuCode = deviceCode()
        try OutputFile.check(output)
        guard output.hasSuffix(".martlet") else {
            throw MartletError(
                .invalidArgument,
                "'\(output)' does not end in .martlet, by which engines are known",
                mend: "Write: -o \(output).martlet")
        }
        let found = try await choice.find()
        try modelOptions.checkEffect(on: found.path)
        Interrupt.watch(folderOf: output)
        let draft = try found.draft(options)
        for plan in draft.targets.flatMap(\.plans) { Console.error(MemoryReport.text(plan)) }
        try draft.write(to: output)
        let size = FileStatus.stamp(output)?.byteCount ?? 0
        Console.error("\(output): \(Format.bytes(size))")
    }

    private func deviceCode() -> [String] {
        guard gpuCode.isEmpty else { return gpuCode.filter { $0 != "none" } }
        if case .success = NVRTC.shared { return CUDACatalog.allCode }
        return []
    }
}
