// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletCore

/// Traces of services: when requests came, and how long they were.
enum LoadTrace {
    /// Counts of tokens that a request may have.
    static let counts = 0...(1 << 24)

    /// Most days between a trace's first and last arrival.
    private static let mostDays = 30

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
        let names = try fields(header).map { $0.lowercased() }
        let columns = names.contains(mooncake.prompt) ? mooncake : azure
        let used = [columns.time, columns.prompt, columns.answer, columns.blocks]
        if let twice = names.first(where: { name in
            used.contains(name) && names.count { $0 == name } > 1
        }) {
            throw header.wrong(
                "there are two columns '\(LoadFile.excerpt(twice))'",
                mend: "Name each column once")
        }
        func place(_ column: String) throws -> Int {
            guard let index = names.firstIndex(of: column) else {
                throw header.wrong(
                    "there is no column \(column) among "
                        + LoadFile.excerpt(names.joined(separator: ", ")),
                    mend: "Name the columns TIMESTAMP,ContextTokens,GeneratedTokens or "
                        + "timestamp,input_length,output_length")
            }
            return index
        }
        let time = try place(columns.time)
        let (prompt, answer) = (try place(columns.prompt), try place(columns.answer))
        let blocks = columns.blocks.flatMap { names.firstIndex(of: $0) }
        var items: [LoadItem] = []
        var first: (isDate: Bool, place: String)?
        for line in lines.dropFirst() {
            let cells = try fields(line)
            guard cells.count == names.count else {
                throw line.wrong(
                    "\(cells.count) cells, but the header names \(names.count) columns",
                    mend: "Give each line a cell for each column")
            }
            guard let came = moment(cells[time], unit: columns.unit) else {
                throw line.wrong(
                    "'\(LoadFile.excerpt(cells[time]))' is no time",
                    mend: "Write a number, or a date such as 2023-11-16 18:15:46.68")
            }
            let known = first ?? (isDate: came.isDate, place: line.place)
            first = known
            guard came.isDate == known.isDate else {
                throw line.wrong(
                    "'\(LoadFile.excerpt(cells[time]))' is a \(came.isDate ? "date" : "number"), "
                        + "but the time of \(known.place) is a \(known.isDate ? "date" : "number")",
                    mend: "Write all times as dates, or all as numbers")
            }
            var knownBlocks: [Int] = []
            if let blocks { knownBlocks = try blockNames(cells[blocks], line) }
            items.append(
                LoadItem(
                    prompt: .length(try count(cells[prompt], least: 1, line), blocks: knownBlocks),
                    answer: .length(try count(cells[answer], least: 0, line)),
                    arrival: came.seconds, place: line.place))
        }
        return items
    }

    /// Lets arrivals count from the earliest.
    ///
    /// - Throws: `MartletError` `.limitExceeded` naming the last one's line and the mend.
    static func countFromFirst(_ items: inout [LoadItem]) throws {
        var ends: (first: Int, last: Int)?
        func time(_ index: Int) -> Double { items[index].arrival ?? 0 }
        for index in items.indices where items[index].arrival != nil {
            guard let known = ends else {
                ends = (first: index, last: index)
                continue
            }
            if time(index) < time(known.first) { ends = (first: index, last: known.last) }
            if time(index) > time(known.last) { ends = (first: known.first, last: index) }
        }
        guard let ends else { return }
        let start = time(ends.first)
        let (duration, limit) = (time(ends.last) - start, mostDays * 86_400)
        guard duration <= Double(limit) else {
            throw MartletError(
                .limitExceeded,
                "\(items[ends.last].place): comes \(Int(duration.rounded(.up))) s after "
                    + "\(items[ends.first].place), but a trace lasts at most \(limit) s "
                    + "(\(mostDays) days)",
                mend: "Correct the time (plain numbers are Azure's seconds or Mooncake's "
                    + "milliseconds), or split the trace")
        }
        for index in items.indices { items[index].arrival? -= start }
    }

    /// Reads a line of Mooncake's JSON.
    ///
    /// - Throws: `MartletError` `.corrupt` naming line and mend.
    static func object(_ json: JSONValue, _ line: LoadFile.Line) throws -> LoadItem {
        func text(_ key: String) throws -> String {
            guard let value = json[key], value.double != nil else {
                throw line.wrong(
                    "\"\(key)\" is \(LoadFile.shown(json[key])), but must be a number",
                    mend:
                        "Such as {\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500}"
                )
            }
            return value.serialized()
        }
        let time = try text(mooncake.time)
        guard let came = moment(time, unit: mooncake.unit) else {
            throw line.wrong(
                "'\(LoadFile.excerpt(time))' is no time", mend: "Write milliseconds")
        }
        return LoadItem(
            prompt: .length(
                try count(try text(mooncake.prompt), least: 1, line),
                blocks: try blockNames(json["hash_ids"], line)),
            answer: .length(try count(try text(mooncake.answer), least: 0, line)),
            arrival: came.seconds, place: line.place)
    }

    private static func count(
        _ text: String, least: Int, _ line: LoadFile.Line
    ) throws -> Int {
        guard let value = Int(text), value >= least, counts.contains(value) else {
            throw line.wrong(
                "'\(LoadFile.excerpt(text))' is no count of tokens",
                mend: "Write a number of \(least) to \(counts.upperBound)")
        }
        return value
    }

    /// The cells of a line of CSV; in quotes a comma is text, and a doubled quote is a quote.
    ///
    /// - Throws: `MartletError` `.corrupt` for quotes that are open or not around a whole cell.
    static func fields(_ line: LoadFile.Line) throws -> [String] {
        /// Where in a cell the next character stands: before or without quotes, in them, behind one
        /// that ends them unless it is doubled, or behind them.
        enum Position { case plain, quoted, quote, behind }
        var (cells, cell, position) = ([String](), String.UnicodeScalarView(), Position.plain)
        func wrong(_ what: String) -> MartletError {
            line.wrong(
                "cell \(cells.count + 1) has \(what)",
                mend: "Put quotes around a whole cell, in one line, and double a quote within")
        }
        for scalar in line.text.unicodeScalars {
            switch (position, scalar) {
            case (.plain, "\""):
                guard cell.allSatisfy(\.properties.isWhitespace) else {
                    throw wrong("a quote within text")
                }
                cell = String.UnicodeScalarView()
                position = .quoted
            case (.quoted, "\""): position = .quote
            case (.quote, "\""):
                cell.append(scalar)
                position = .quoted
            case (.plain, ","), (.quote, ","), (.behind, ","):
                cells.append(trimmed(cell))
                cell = String.UnicodeScalarView()
                position = .plain
            case (.plain, _), (.quoted, _): cell.append(scalar)
            case (.quote, _), (.behind, _):
                guard scalar.properties.isWhitespace else { throw wrong("text behind its quotes") }
                position = .behind
            }
        }
        if position == .quoted { throw wrong("a quote that is not closed") }
        return cells + [trimmed(cell)]
    }

    private static func trimmed(_ cell: String.UnicodeScalarView) -> String {
        guard let first = cell.firstIndex(where: { !$0.properties.isWhitespace }),
            let last = cell.lastIndex(where: { !$0.properties.isWhitespace })
        else { return "" }
        return String(cell[first...last])
    }

    /// Names of blocks in a cell, with or without brackets, commas or spaces between them.
    private static func blockNames(_ text: String, _ line: LoadFile.Line) throws -> [Int] {
        var list = text[...]
        if list.hasPrefix("["), list.hasSuffix("]") { list = list.dropFirst().dropLast() }
        guard !list.allSatisfy(\.isWhitespace) else { return [] }
        var names: [Int] = []
        for part in list.split(separator: ",", omittingEmptySubsequences: false) {
            let words = part.split(whereSeparator: \.isWhitespace)
            guard !words.isEmpty else { throw noBlock("''", line) }
            for word in words {
                guard let name = Int(word), name >= 0 else {
                    throw noBlock("'\(LoadFile.excerpt(String(word)))'", line)
                }
                names.append(name)
            }
        }
        return names
    }

    /// Names of blocks in JSON; none where there is no list.
    private static func blockNames(_ json: JSONValue?, _ line: LoadFile.Line) throws -> [Int] {
        guard let json, !json.isNull else { return [] }
        guard let values = json.array else { throw noBlock(LoadFile.shown(json), line) }
        return try values.map { value -> Int in
            guard let name = value.int, name >= 0 else {
                throw noBlock(LoadFile.shown(value), line)
            }
            return name
        }
    }

    private static func noBlock(_ text: String, _ line: LoadFile.Line) -> MartletError {
        line.wrong(
            "hash_ids: \(text) is no name of a block",
            mend: "List numbers of 0 to \(Int.max), such as [0, 1, 2]; in CSV, in quotes")
    }
}
