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
        name: [.customShort("o"), .long],
        help: "Engine file to write; once more with json, csv or md for a table of it.",
        completion: .file(extensions: ["martlet"]))
    var output: [String]
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
        try GivenFlags.refuse(["--no-cache"], "on build, which writes the file that it is told to")
        let isForGPU = target.isEmpty ? options.device == .cuda : target.contains("cuda")
        if !isForGPU {
            try GivenFlags.refuse(
                ["--gpu-code"], "on an engine for CPUs alone", mend: "Add --target cuda")
        }
        let code = try isForGPU ? deviceCode() : DeviceCode()
        options.gpuCode = code.chips
        guard gpuCode.count <= 1 || !gpuCode.contains("none") else {
            throw MartletError(
                .invalidArgument, "--gpu-code none contradicts the chips beside it",
                mend: "Name chips, or none alone")
        }
        let (file, form) = try outputs()
        let found = try await choice.find()
        try modelOptions.checkEffect(on: found.path)
        try OutputFile.checkApart([file], from: [found.file])
        Interrupt.watch(folderOf: file)
        let draft = try found.draft(options)
        let plans = draft.targets.flatMap { target in
            target.plans.map { (target: target.name, report: MemoryReport($0)) }
        }
        if form == .text { for plan in plans { Console.error(plan.report.text) } }
        try draft.write(to: OutputFile.replaceable(file))
        if let missing = code.missing {
            Console.error(
                "note: the engine holds no GPU kernels, so a machine that runs it needs NVRTC: "
                    + "\(missing.message). \(NVRTC.installation), then build again; or add "
                    + "--gpu-code none if that is wanted")
        }
        let size = FileStatus.stamp(file)?.byteCount ?? 0
        guard form != .text else { return Console.error("\(file): \(Format.bytes(size))") }
        var table = Table(["engine", "bytes", "target"] + MemoryReport.columns)
        for plan in plans {
            table.add([.string(file), .int(size), .string(plan.target)] + plan.report.row)
        }
        Console.line(table.rendered(form))
    }

    /// The engine file, and the form of what is said of it: no engine is named as a form is.
    private func outputs() throws -> (file: String, form: Table.Form) {
        let forms = output.compactMap(Table.Form.init(rawValue:))
        let files = output.filter { Table.Form(rawValue: $0) == nil }
        guard let file = files.first, files.count == 1, forms.count <= 1 else {
            throw MartletError(
                .invalidArgument,
                "--output names \(files.count) engine files and \(forms.count) forms",
                mend: "Write: -o NAME.martlet, and --output json for a table of it")
        }
        try OutputFile.check(file)
        _ = try OutputFile.replaceable(file)
        guard file.hasSuffix(".martlet") else {
            throw MartletError(
                .invalidArgument, "'\(file)' does not end in .martlet, by which engines are known",
                mend: "Write: -o \(file).martlet")
        }
        return (file, forms.first ?? .text)
    }

    /// Chips that an engine holds code for, and what is missing where it can hold none.
    private struct DeviceCode {
        var chips: [String] = []
        var missing: MartletError?
    }

    /// - Throws: `MartletError` if the user names an NVRTC that cannot be used.
    private func deviceCode() throws -> DeviceCode {
        guard gpuCode.isEmpty else { return DeviceCode(chips: gpuCode.filter { $0 != "none" }) }
        switch NVRTC.shared {
        case .success: return DeviceCode(chips: CUDACatalog.allCode)
        case .failure(let error) where NVRTC.isNamed:
            throw MartletError(
                error.code, error.message,
                mend: "\(error.mend ?? ""); --gpu-code none builds an engine without kernels")
        case .failure(let error): return DeviceCode(missing: error)
        }
    }
}
