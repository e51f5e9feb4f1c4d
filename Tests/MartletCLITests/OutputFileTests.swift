// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Testing

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Result files: regular ones are replaced whole, links lead on, devices and pipes are written in place.
@Suite struct OutputFileTests {
    private static let answer = ["--input-ids", "51,173,107", "-m", "4"]

    private func kind(_ path: String) -> mode_t {
        var status = stat()
        return lstat(path, &status) == 0 ? status.st_mode & S_IFMT : 0
    }

    private func run(_ program: Program, to path: String, shell: String = "") -> Program.Result {
        let arguments = ["run", Program.model, "--output-csv", path] + Self.answer
        return program.run(arguments, shell: shell.isEmpty ? "exec \"$0\" \"$@\"" : shell)
    }

    @Test func aFullDeviceIsAnErrorAndStays() {
        let program = Program()
        defer { program.remove() }
        let link = program.folder + "/full.csv"
        #expect(symlink("/dev/full", link) == 0)
        let result = run(program, to: link)
        #expect(result.code == 8, "\(result.error)")
        #expect(result.error.contains("cannot write \(link): No space left on device"))
        #expect(kind(link) == S_IFLNK && kind("/dev/full") == S_IFCHR)
    }

    @Test func pipesGetTheBytes() {
        let program = Program()
        defer { program.remove() }
        let pipe = program.folder + "/pipe"
        #expect(mkfifo(pipe, 0o600) == 0)
        let result = run(
            program, to: pipe,
            shell: "timeout 60 cat '\(pipe)' > '\(program.folder)/got' & \"$0\" \"$@\"; wait")
        #expect(result.error.isEmpty, "\(result.error)")
        #expect(kind(pipe) == S_IFIFO)
        #expect(program.bytes("got") == Array(result.output.utf8) && !result.output.isEmpty)
    }

    /// To a file that standard output goes to as well, behind what is there.
    @Test func standardOutputHasAName() {
        let program = Program()
        defer { program.remove() }
        let plain = program.run(["run", Program.model] + Self.answer)
        let named = run(program, to: "/dev/stdout")
        #expect(named.code == 0, "\(named.error)")
        #expect(named.output == plain.output + plain.output && !plain.output.isEmpty)
    }

    @Test(arguments: [false, true])
    func linksLeadOn(isDangling: Bool) {
        let program = Program()
        defer { program.remove() }
        program.makeFolder("other")
        let target = program.folder + "/other/ids.csv"
        if !isDangling {
            program.write([1], to: "other/ids.csv")
            chmod(target, 0o640)
        }
        let link = program.folder + "/link.csv"
        #expect(symlink("other/ids.csv", link) == 0)
        let result = run(program, to: link)
        #expect(result.code == 0, "\(result.error)")
        #expect(kind(link) == S_IFLNK && kind(target) == S_IFREG)
        #expect(program.bytes("other/ids.csv") == Array(result.output.utf8))
        var status = stat()
        #expect(stat(target, &status) == 0 && isDangling || status.st_mode & 0o777 == 0o640)
        #expect(program.names("other") == ["ids.csv"])
    }

    @Test func enginesReplaceRegularFilesOnly() {
        let program = Program()
        defer { program.remove() }
        let (pipe, link) = (program.folder + "/pipe.martlet", program.folder + "/link.martlet")
        #expect(mkfifo(pipe, 0o600) == 0 && symlink("real.martlet", link) == 0)
        let refused = program.run(["build", Program.model, "-o", pipe])
        #expect(refused.code == 8, "\(refused.error)")
        #expect(refused.error.contains("cannot write \(pipe): it is no regular file"))
        #expect(kind(pipe) == S_IFIFO)
        #expect(program.run(["build", Program.model, "-o", link]).code == 0)
        #expect(kind(link) == S_IFLNK && kind(program.folder + "/real.martlet") == S_IFREG)
    }

    /// A pipe in place of a model is an error, not a wait for its writer.
    @Test(arguments: ["p.gguf", "p.martlet"])
    func aPipeIsNoModel(name: String) {
        let program = Program()
        defer { program.remove() }
        let pipe = program.folder + "/" + name
        #expect(mkfifo(pipe, 0o600) == 0)
        let result = program.run(
            ["run", pipe] + Self.answer, shell: "exec timeout 60 \"$0\" \"$@\"")
        #expect(result.code == 8, "\(result.error)")
        #expect(result.error == "error: \(pipe) is not a regular file\n")
    }
}
