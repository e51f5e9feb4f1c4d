// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Traces of services: when requests came, and how long they were.
enum LoadTrace {
    /// Counts of tokens that a request may have.
    static let counts = 0...(1 << 24)

    /// The columns that a publisher of traces uses.
    private struct Columns {
        let time: String, prompt: String, answer: String
        /// Seconds of the time column's unit, where it holds plain numbers.
        let unit: Double
        var blocks: String?
    }

    private static let azure = Columns(
        time: "timestamp", prompt: "contexttokens", answer: "generatedtokens", unit: 1)
    private static let mooncake = Columns(
        time: "timestamp", prompt: "input_length", answer: "output_length", unit: 1e-3,
        blocks: "hash_ids")

    /// Reads lines of CSV, the first one with the columns' names.
    ///
    /// - Throws: `MartletError` `.corrupt` naming line and mend.
    static func parse(_ lines: [LoadFile.Line], name: String) throws -> [LoadItem] {
        guard let header = lines.first else { return [] }
        let names = fields(header.text).map { $0.lowercased() }
        let columns = names.contains(mooncake.prompt) ? mooncake : azure
        func place(_ column: String) throws -> Int {
            guard let index = names.firstIndex(of: column) else {
                throw header.wrong(
                    "there is no column \(column) among \(names.joined(separator: ", "))",
                    mend: "Name the columns TIMESTAMP,ContextTokens,GeneratedTokens or "
                        + "timestamp,input_length,output_length")
            }
            return index
        }
        let time = try place(columns.time)
        let (prompt, answer) = (try place(columns.prompt), try place(columns.answer))
        let blocks = columns.blocks.flatMap { names.firstIndex(of: $0) }
        return try lines.dropFirst().map { line in
            let cells = fields(line.text)
            guard cells.count == names.count else {
                throw line.wrong(
                    "\(cells.count) cells, but the header names \(names.count) columns",
                    mend: "Give each line a cell for each column")
            }
            guard let seconds = seconds(cells[time], unit: columns.unit) else {
                throw line.wrong(
                    "'\(cells[time])' is no time",
                    mend: "Write a number, or a date such as 2023-11-16 18:15:46.68")
            }
            return LoadItem(
                prompt: .length(
                    try count(cells[prompt], least: 1, line),
                    blocks: blocks.map { numbers(cells[$0]) } ?? []),
                answer: .length(try count(cells[answer], least: 0, line)), arrival: seconds,
                place: line.place)
        }
    }

    /// Reads a line of Mooncake's JSON.
    ///
    /// - Throws: `MartletError` `.corrupt` naming line and mend.
    static func object(_ json: JSONValue, _ line: LoadFile.Line) throws -> LoadItem {
        func text(_ key: String) throws -> String {
            guard let value = json[key], value.double != nil else {
                throw line.wrong(
                    "\"\(key)\" is \(json[key]?.serialized() ?? "missing"), but must be a number",
                    mend:
                        "Such as {\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500}"
                )
            }
            return value.serialized()
        }
        let time = try text(mooncake.time)
        guard let seconds = seconds(time, unit: mooncake.unit) else {
            throw line.wrong("'\(time)' is no time", mend: "Write milliseconds")
        }
        return LoadItem(
            prompt: .length(
                try count(try text(mooncake.prompt), least: 1, line),
                blocks: json["hash_ids"]?.array?.compactMap(\.int) ?? []),
            answer: .length(try count(try text(mooncake.answer), least: 0, line)),
            arrival: seconds, place: line.place)
    }

    private static func count(
        _ text: String, least: Int, _ line: LoadFile.Line
    ) throws -> Int {
        guard let value = Int(text), value >= least, counts.contains(value) else {
            throw line.wrong(
                "'\(text)' is no count of tokens",
                mend: "Write a number of \(least) to \(counts.upperBound)")
        }
        return value
    }

    /// The cells of a line of CSV; in quotes a comma is text, and a doubled quote is a quote.
    static func fields(_ line: String) -> [String] {
        var (cells, isQuoted, last): ([String], Bool, Character) = ([""], false, " ")
        for character in line where !character.isNewline {
            if character == "\"" {
                isQuoted.toggle()
                if isQuoted, last == "\"" { cells[cells.count - 1].append("\"") }
            } else if character == ",", !isQuoted {
                cells.append("")
            } else {
                cells[cells.count - 1].append(character)
            }
            last = character
        }
        return cells.map { cell in
            String(
                cell.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed())
        }
    }

    private static func numbers(_ text: String) -> [Int] {
        text.split { !$0.isASCII || !$0.isNumber }.compactMap { Int($0) }
    }

    /// Seconds of a number in a unit, or since 1970 of a date and a time of day in UTC.
    static func seconds(_ text: String, unit: Double) -> Double? {
        if let value = Double(text) {
            return value.isFinite && abs(value) < 1e15 ? value * unit : nil
        }
        let parts = text.split { $0 == " " || $0 == "T" }
        guard parts.count == 2 else { return nil }
        let date = parts[0].split(separator: "-").map { Int($0) }
        // An offset is the same on all lines: only differences count.
        let clock = parts[1].prefix { $0 != "+" && $0 != "Z" }.split(separator: ":")
            .map { Double($0) }
        guard date.count == 3, clock.count == 3, let year = date[0], let month = date[1],
            let day = date[2], let hour = clock[0], let minute = clock[1], let second = clock[2],
            1970...9999 ~= year, 1...12 ~= month, 1...31 ~= day, 0..<24 ~= hour, 0..<60 ~= minute,
            0..<61 ~= second
        else { return nil }
        return Double(days(year, month, day)) * 86_400 + hour * 3600 + minute * 60 + second
    }

    /// Days since 1970 of a date of the Gregorian calendar; years begin in March, so that a leap day ends one.
    private static func days(_ year: Int, _ month: Int, _ day: Int) -> Int {
        let marchYear = month > 2 ? year : year - 1
        let marchMonth = (month + 9) % 12
        let leaps = marchYear / 4 - marchYear / 100 + marchYear / 400
        return marchYear * 365 + leaps + (marchMonth * 153 + 2) / 5 + day - 1 - 719_468
    }
}
