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

/// Files that change under the program: another content is noticed, one that is cut short ends it with one line.
@Suite struct ChangedFileTests {
    /// Whether a process has a file mapped.
    private func hasMapped(_ process: pid_t, _ name: String) -> Bool {
        String(decoding: Program.bytes("/proc/\(process)/maps"), as: UTF8.self).contains(name)
    }

    @Test func aFileCutShortInUseIsOneError() {
        let program = Program()
        defer { program.remove() }
        let engine = program.folder + "/x.martlet"
        #expect(program.run(["build", Program.model, "-o", engine]).code == 0)
        // Runs for longer than a reader has patience, unless it is ended.
        let process = program.start(["bench", engine, "--duration", "600"])
        for _ in 0..<60_000 where !hasMapped(process, "x.martlet") { usleep(1000) }
        #expect(truncate(engine, 100) == 0)
        let result = program.finish(process)
        #expect(result.code == 8, "\(result.code): \(result.error)")
        #expect(result.error.hasPrefix("error: \(engine) was cut short"), "\(result.error)")
        #expect(result.error.split(separator: "\n").count == 1)
    }

    /// Tools that copy times with files make the time of change say nothing.
    @Test func weightsOfTheSameSizeAndTimeAreOthers() {
        let program = Program()
        defer { program.remove() }
        program.makeFolder("model")
        for name in ["config.json", "model.safetensors"] {
            program.write(Program.bytes(Program.model + "/" + name), to: "model/" + name)
        }
        let path = program.folder + "/model/model.safetensors"
        var status = stat()
        stat(path, &status)
        let arguments = ["run", program.folder + "/model", "--input-ids", "1,2,3", "-m", "8"]
        let first = program.run(arguments)
        #expect(first.code == 0, "\(first.error)")
        var bytes = program.bytes("model/model.safetensors")
        // The sign of each weight of the second half.
        for index in stride(from: bytes.count / 2 / 4 * 4 + 3, to: bytes.count, by: 4) {
            bytes[index] ^= 0x80
        }
        program.write(bytes, to: "model/model.safetensors")
        #if canImport(Darwin)
        var times = [status.st_atimespec, status.st_mtimespec]
        #else
        var times = [status.st_atim, status.st_mtim]
        #endif
        #expect(utimensat(AT_FDCWD, path, &times, 0) == 0)
        let second = program.run(arguments)
        #expect(second.code == 0, "\(second.error)")
        #expect(second.output == program.run(arguments + ["--no-cache"]).output)
        #expect(second.output != first.output)
    }

    /// Codes of a quantization that nobody reads are not weights.
    @Test func integerWeightsAreRefused() throws {
        let program = Program()
        defer { program.remove() }
        program.makeFolder("model")
        program.write(Program.bytes(Program.model + "/config.json"), to: "model/config.json")
        var text = Program.bytes(Program.model + "/model.safetensors")
        let name = Array("q_proj.weight\":{\"dtype\":\"F32\"".utf8)
        let place = try #require(
            text.indices.first { text[$0...].starts(with: name) }, "the file's header changed")
        text[place + name.count - 4] = UInt8(ascii: "I")
        program.write(text, to: "model/model.safetensors")
        let result = program.run(["run", program.folder + "/model", "--input-ids", "1", "-m", "1"])
        #expect(result.code == 5, "\(result.error)")
        #expect(result.error.contains("q_proj.weight' has elements of type i32"), "\(result.error)")
    }
}
