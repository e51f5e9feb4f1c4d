// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Martlet

/// Builds an engine file.
struct BuildCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build", abstract: "Compiles a model to one engine file.",
        aliases: ["convert", "quantize"])

    @Argument(help: "Model: alias, path, or owner/name:FILE.")
    var model: String
    @Option(
        name: [.customShort("o"), .long], help: "Engine file to write.",
        completion: .file(extensions: ["martlet"]))
    var output: String
    @OptionGroup var modelOptions: ModelOptions

    func run() async throws {
        let options = try modelOptions.loadOptions()
        try OutputFile.check(output)
        guard output.hasSuffix(".martlet") else {
            throw MartletError(
                .invalidArgument,
                "'\(output)' does not end in .martlet, by which engines are known",
                mend: "Write: -o \(output).martlet")
        }
        let path = try await ModelFinder.path(model)
        guard !path.hasSuffix(".martlet") else {
            throw MartletError(
                .unsupported, "\(path) is an engine file, which cannot be built from",
                mend: "Name the checkpoint it was made of")
        }
        Interrupt.watch(folderOf: output)
        let (builder, source) = try LanguageModel.builder(path, options: options)
        let programs = try builder.programs()
        for program in programs {
            Console.error(MemoryReport.text(program.emitted.plan))
        }
        try builder.build(to: output, source)
        let size = FileStatus.stamp(output)?.byteCount ?? 0
        Console.error("\(output): \(Format.bytes(size))")
    }
}
