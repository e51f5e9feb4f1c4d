// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet

#if canImport(Glibc)
@preconcurrency import Glibc
#elseif canImport(Musl)
@preconcurrency import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Several precisions of one model, each measured in a process of its own, so that peaks of memory
/// do not mix.
struct BenchComparison {
    /// One precision's figures for one case.
    struct Row {
        let precision: String
        /// What the child's bench printed for the case, by column.
        let figures: JSONObject

        /// A figure by its column; 0 if it is missing.
        func number(_ column: String) -> Double { figures[column]?.double ?? 0 }

        /// Batch, prompt and answer: rows of the same case are compared.
        var label: String {
            ["batch", "in", "out"].map { Format.decimal(number($0), 0) }.joined(separator: " x ")
        }
    }

    let rows: [Row]

    /// Runs `bench` once per precision.
    ///
    /// What building an engine took, where it was not in the cache, is not counted: `bench` lets
    /// the peak start anew once the model is loaded.
    ///
    /// - Parameters:
    ///   - precisions: In order; the first is what others are compared with.
    ///   - arguments: This process's own arguments, which the children get too.
    ///   - modelOptions: As parsed from them.
    /// - Throws: `MartletError` if a child cannot start; if one fails, the program ends as it did.
    static func measure(
        _ precisions: [BenchPrecision], arguments: [String], _ modelOptions: ModelOptions
    ) async throws -> BenchComparison {
        var rows: [Row] = []
        for precision in precisions {
            Console.error("measuring \(precision.name)")
            let kept = Self.removing(from: arguments, precision.replaces)
            let text = try child(kept + precision.flags + ["--output", "json"])
            let json = try JSONValue.parse(
                ByteView(Array(text)), name: "the figures of \(precision.name)")
            rows += (json.array ?? []).compactMap(\.object).map {
                Row(precision: precision.name, figures: $0)
            }
        }
        return BenchComparison(rows: rows)
    }

    /// Arguments without some options and their values, in both spellings.
    static func removing(from arguments: [String], _ isRemoved: (String) -> Bool) -> [String] {
        var kept: [String] = []
        var skips = false
        for argument in arguments {
            if skips {
                skips = false
                continue
            }
            let name = String(argument.prefix { $0 != "=" }.map { $0 == "_" ? "-" : $0 })
            guard argument.hasPrefix("--"), isRemoved(name) else {
                kept.append(argument)
                continue
            }
            skips = !argument.contains("=")
        }
        return kept
    }

    /// Runs this program and returns what it wrote.
    private static func child(_ arguments: [String]) throws -> [UInt8] {
        var template = Array("/tmp/martlet-bench-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        guard descriptor >= 0 else {
            throw MartletError(
                .io, "cannot make a temporary file: \(String(cString: strerror(errno)))")
        }
        close(descriptor)
        let path = String(
            decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { unlink(path) }
        let code = try run(program, arguments, output: path)
        guard code == 0 else {
            // What went wrong the child has said.
            unlink(path)
            ExitStatus.leave(code)
        }
        return try MappedFile.map(path).array(of: UInt8.self)
    }

    /// Runs a program whose standard output goes to a file, and waits for its end.
    private static func run(
        _ program: String, _ arguments: [String], output: String
    ) throws -> Int32 {
        #if canImport(Darwin)
        var actions: posix_spawn_file_actions_t?
        #else
        var actions = posix_spawn_file_actions_t()
        #endif
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_TRUNC, 0o600)
        let words = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var process: pid_t = 0
        let result = posix_spawn(&process, program, &actions, nil, words, environ)
        guard result == 0 else {
            throw MartletError(
                .io, "cannot start \(program): \(String(cString: strerror(result)))")
        }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        let signal = status & 0x7f
        return signal == 0 ? (status >> 8) & 0xff : 128 + signal
    }

    /// Path of this program.
    static var program: String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        guard count > 0 else { return CommandLine.arguments.first ?? "martlet" }
        return String(
            decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Each case of the first precision, with the same case of the others below it.
    var table: Table {
        var table = Table([
            "precision", "batch", "in", "out", "max context", "latency ms", "first token ms",
            "tokens/s", "decode tokens/s", "peak MB", "latency %", "memory %", "weights",
            "activations", "KV",
        ])
        for (row, base) in compared {
            let columns = table.columns.dropFirst().map { column -> JSONValue in
                switch column {
                case "latency %": Self.reduction(row, base, "latency ms")
                case "memory %": Self.reduction(row, base, "peak MB")
                default: row.figures[column] ?? .null
                }
            }
            table.add([.string(row.precision)] + columns)
        }
        return table
    }

    /// Rows beside those they are compared with, case by case.
    var compared: [(row: Row, base: Row)] {
        var labels: [String] = []
        for row in rows where !labels.contains(row.label) { labels.append(row.label) }
        return labels.flatMap { label in
            let alike = rows.filter { $0.label == label }
            return alike.compactMap { row in alike.first.map { (row, $0) } }
        }
    }

    /// Change against the first precision in percent: negative is less.
    private static func reduction(_ row: Row, _ base: Row, _ column: String) -> JSONValue {
        let whole = base.number(column)
        guard whole > 0 else { return .null }
        let change = 100 * (row.number(column) / whole - 1)
        return .double(Double(Format.decimal(change, 1)) ?? change)
    }
}
