// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore
import MartletHub

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// The machine's own Python: it makes wheels, and says what others than Martlet see in a cache.
enum Python {
    /// Path of `python3`, behind all shims; `MARTLET_TEST_PYTHON` names another one.
    static var path: String? { get async { await found.value } }

    /// Whether it has `huggingface_hub`.
    static var hasHub: Bool {
        get async { (try? await run("-c", "import huggingface_hub")) != nil }
    }

    private static let found = Task<String?, Never> {
        let environment = ProcessEnvironment.current()
        let folders = (environment["PATH"] ?? "").split(separator: ":")
        let names = folders.map { folder -> String in "\(folder)/python3" }.filter {
            access($0, X_OK) == 0
        }
        guard let name = environment["MARTLET_TEST_PYTHON"] ?? names.first else { return nil }
        let output = try? await run("-c", "import sys; print(sys.executable)", program: name)
        return output.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// Runs Python and returns what it prints, trimmed.
    @discardableResult
    static func run(
        _ arguments: String..., program: String? = nil, environment: [String: String] = [:]
    ) async throws -> String {
        let folder = TemporaryFolder()
        var python = program
        if python == nil { python = await path }
        let all = ProcessEnvironment.current().merging(environment) { $1 }
        let status = try await ChildProcess(
            python ?? "python3", arguments, environment: all, folder: folder.path,
            output: "\(folder.path)/output", error: "\(folder.path)/error"
        ).wait()
        let error = Disk.shortText("\(folder.path)/error") ?? ""
        guard status == 0 else { throw MartletError(.internalError, "python3: \(error)") }
        return Disk.shortText("\(folder.path)/output") ?? ""
    }

    /// Puts a `python3` into `bin` of a folder whose pip is some lines of shell.
    static func installShim(in folder: TemporaryFolder, pip: String) async throws {
        let python = await path ?? "false"
        let text = """
            #!/bin/sh
            [ "$2" = pip ] || exec \(python) "$@"
            \(pip)
            """
        try folder.write("bin/python3", Array(text.utf8))
        chmod("\(folder.path)/bin/python3", 0o755)
    }
}
