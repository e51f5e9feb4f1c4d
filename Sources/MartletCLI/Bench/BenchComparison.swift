// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletHub

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
            let text = try await child(
                kept + precision.flags + ["--output", "json"], precision.name)
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

    /// Runs this program and returns what it wrote; it ends when we do.
    private static func child(_ arguments: [String], _ name: String) async throws -> [UInt8] {
        let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(folder)/martlet-bench-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        guard descriptor >= 0 else {
            throw MartletError(
                .io,
                "cannot make a temporary file in \(folder): \(String(cString: strerror(errno)))",
                mend: "Set TMPDIR to a folder that can be written")
        }
        // A name is not needed, and would stay if we are killed.
        unlink(template)
        defer { close(descriptor) }
        let code = try await ChildProcess(
            program, arguments, environment: ProcessEnvironment.current(), folder: ".",
            output: "/dev/fd/\(descriptor)", error: nil
        ).wait()
        guard code < 128 else {
            throw MartletError(
                .device, "measuring \(name) was ended by signal \(code - 128)",
                mend: "Signal 9 often means that memory ran out: compare smaller precisions")
        }
        // Any other failure the child has put into words.
        guard code == 0 else { ExitStatus.leave(code) }
        return try MappedFile.map("/dev/fd/\(descriptor)").array(of: UInt8.self)
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
