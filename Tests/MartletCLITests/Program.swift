// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// The built program, run as a child process the way a shell runs it.
struct Program {
    /// How a run ended and what it printed.
    struct Result {
        /// Exit code; 128 + signal if one ended it.
        let code: Int32
        let output: String
        let error: String
    }

    /// Folder for everything a test writes, removed by `remove`.
    let folder: String

    init() {
        var template = Array("/tmp/martlet-cli-XXXXXX".utf8CString)
        folder = template.withUnsafeMutableBufferPointer { buffer in
            guard let base = buffer.baseAddress, let made = mkdtemp(base) else { return "/tmp" }
            return String(cString: made)
        }
    }

    /// Where the products are built: the folder of the test bundle.
    static let products: String = {
        let path =
            CommandLine.arguments.first { $0.contains(".xctest") } ?? CommandLine.arguments[0]
        var parts = path.split(separator: "/", omittingEmptySubsequences: false)
        while let last = parts.last, !last.hasSuffix(".xctest"), parts.count > 1 {
            parts.removeLast()
        }
        return parts.dropLast().joined(separator: "/")
    }()

    /// Folder of the fixtures.
    static let fixtures: String = {
        let parts = #filePath.split(separator: "/", omittingEmptySubsequences: false)
        return parts.dropLast(2).joined(separator: "/") + "/Fixtures"
    }()

    /// The tiny model with grouped heads.
    static var model: String { fixtures + "/llama-gqa" }

    /// Runs the program to its end.
    ///
    /// - Parameter limit: File size limit in blocks of `ulimit -f`, if any.
    func run(_ arguments: [String], limit: Int? = nil) -> Result {
        let process = start(arguments, limit: limit)
        return finish(process)
    }

    /// Runs the program within a line of a shell, where `"$0" "$@"` is the whole call.
    func run(_ arguments: [String], shell: String) -> Result {
        finish(start(arguments, shell: shell))
    }

    /// Runs the program with a text as standard input.
    func run(_ arguments: [String], input: String) -> Result {
        write(Array(input.utf8), to: "in.txt")
        return run(arguments, shell: "exec \"$0\" \"$@\" < '\(folder)/in.txt'")
    }

    /// Starts the program; `finish` must follow.
    func start(_ arguments: [String], limit: Int? = nil, shell: String? = nil) -> pid_t {
        let program = Self.products + "/martlet"
        var words = [program] + arguments
        if let line = limit.map({ "ulimit -f \($0); exec \"$0\" \"$@\"" }) ?? shell {
            words = ["/bin/sh", "-c", line, program] + arguments
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let flags = O_WRONLY | O_CREAT | O_TRUNC
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, folder + "/out.txt", flags, 0o600)
        posix_spawn_file_actions_addopen(&actions, 2, folder + "/err.txt", flags, 0o600)
        var process: pid_t = 0
        let argv = words.map { strdup($0) } + [nil]
        let environment = environment.map { strdup($0) } + [nil]
        defer { for pointer in argv + environment { free(pointer) } }
        let status = posix_spawn(&process, words[0], &actions, nil, argv, environment)
        return status == 0 ? process : -1
    }

    /// What the program sees of the environment.
    var environment: [String] {
        var variables = [
            "HOME=\(folder)", "PATH=/usr/bin:/bin", "MARTLET_CACHE=\(folder)/cache",
            "HF_HUB_OFFLINE=1", "SWIFT_BACKTRACE=enable=no", "TERM=xterm",
        ]
        if let libraries = getenv("LD_LIBRARY_PATH") {
            variables.append("LD_LIBRARY_PATH=\(String(cString: libraries))")
        }
        return variables
    }

    /// Seconds after which a program that has not ended is killed.
    static let patience = 300

    /// Waits for the end.
    func finish(_ process: pid_t) -> Result {
        guard process > 0 else { return Result(code: -1, output: "", error: "not started") }
        let status = Self.wait(for: process)
        let code = status & 0x7f == 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f)
        return Result(code: code, output: text("out.txt"), error: text("err.txt"))
    }

    /// Waits for a process; kills one that has lost its way.
    static func wait(for process: pid_t) -> Int32 {
        var status: Int32 = 0
        for _ in 0..<patience * 200 {
            let ended = waitpid(process, &status, WNOHANG)
            if ended == process || ended < 0 && errno != EINTR { return status }
            usleep(5000)
        }
        kill(process, SIGKILL)
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        return status
    }

    /// Content of a file in the folder.
    func bytes(_ name: String) -> [UInt8] { Self.bytes(folder + "/" + name) }

    /// Content of a file.
    static func bytes(_ path: String) -> [UInt8] {
        guard let file = fopen(path, "rb") else { return [] }
        defer { fclose(file) }
        var content: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            if count == 0 { return content }
            content += chunk[..<count]
        }
    }

    /// Writes a file in the folder.
    func write(_ bytes: [UInt8], to name: String) {
        guard let file = fopen(folder + "/" + name, "wb") else { return }
        fwrite(bytes, 1, bytes.count, file)
        fclose(file)
    }

    /// Makes a folder in the folder.
    func makeFolder(_ name: String) { mkdir(folder + "/" + name, 0o700) }

    /// Names of the files in the folder or one below it.
    func names(_ below: String = "") -> [String] {
        guard let directory = opendir(folder + "/" + below) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Removes everything the test wrote.
    func remove() {
        guard folder.hasPrefix("/tmp/martlet-cli-") else { return }
        Self.remove(folder)
    }

    /// Removes one of the files.
    func remove(_ name: String) { Self.remove(folder + "/" + name) }

    private static func remove(_ path: String) {
        // A link goes, what it leads to stays.
        guard unlink(path) != 0 else { return }
        for name in list(path) { remove(path + "/" + name) }
        rmdir(path)
    }

    private func text(_ name: String) -> String { String(decoding: bytes(name), as: UTF8.self) }
}
