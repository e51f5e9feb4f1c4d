// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials
import MartletCore

/// Rows for people and for programs: one description, four forms.
struct Table {
    /// Form of a table.
    enum Form: String, CaseIterable {
        /// Aligned columns.
        case text
        /// A list of objects.
        case json
        /// Comma-separated values with a header.
        case csv
        /// A Markdown table.
        case md
    }

    let columns: [String]
    private(set) var rows: [[JSONValue]] = []

    init(_ columns: [String]) { self.columns = columns }

    mutating func add(_ cells: [JSONValue]) { rows.append(cells) }

    private static func text(_ value: JSONValue) -> String {
        value.string ?? (value.isNull ? "" : value.serialized())
    }

    /// A list of objects.
    var json: JSONValue {
        .array(rows.map { JSONValue.object(JSONObject(Array(zip(columns, $0)))) })
    }

    func rendered(_ form: Form) -> String {
        let cells = rows.map { $0.map(Self.text) }
        switch form {
        case .json: return json.serialized(pretty: true)
        case .csv:
            func quoted(_ text: String) -> String {
                text.contains { ",\"\n".contains($0) }
                    ? "\""
                        + text.split(separator: "\"", omittingEmptySubsequences: false)
                        .joined(separator: "\"\"") + "\"" : text
            }
            return ([columns] + cells).map { $0.map(quoted).joined(separator: ",") }
                .joined(separator: "\n")
        case .md:
            func escaped(_ text: String) -> String {
                text.split(separator: "|", omittingEmptySubsequences: false).joined(
                    separator: "\\|"
                )
                .split(separator: "\n", omittingEmptySubsequences: false).joined(separator: "<br>")
            }
            let head = "| " + columns.joined(separator: " | ") + " |"
            let rule = "|" + columns.map { _ in "---|" }.joined()
            return
                ([head, rule] + cells.map { "| " + $0.map(escaped).joined(separator: " | ") + " |" })
                .joined(separator: "\n")
        case .text:
            let widths = columns.indices.map { column in
                ([columns] + cells).map { DisplayWidth.of($0[column]) }.max() ?? 0
            }
            let isNumber = columns.indices.map { column in
                rows.allSatisfy { $0[column].double != nil }
            }
            return ([columns] + cells).map { row in
                row.enumerated().map { index, cell in
                    let pad = String(
                        repeating: " ", count: widths[index] - DisplayWidth.of(cell))
                    return isNumber[index] && !rows.isEmpty ? pad + cell : cell + pad
                }.joined(separator: "  ").trimmingTrailingSpaces
            }.joined(separator: "\n")
        }
    }
}

extension String {
    var trimmingTrailingSpaces: String {
        var text = self[...]
        while text.last == " " { text.removeLast() }
        return String(text)
    }

    /// Without one line end at the end.
    var trimmingLineEnd: String { last?.isNewline == true ? String(dropLast()) : self }
}

/// Numbers as people read them.
enum Format {
    /// A number with a fixed count of decimals.
    static func decimal(_ value: Double, _ places: Int) -> String {
        var scale = 1.0
        for _ in 0..<places { scale *= 10 }
        guard value.isFinite, abs(value) * scale < 1e15 else { return "\(value)" }
        let scaled = Int((abs(value) * scale).rounded())
        let sign = value < 0 && scaled > 0 ? "-" : ""
        guard places > 0 else { return sign + String(scaled) }
        let fraction = String(scaled % Int(scale))
        return sign + String(scaled / Int(scale)) + "."
            + String(repeating: "0", count: places - fraction.count) + fraction
    }

    /// A byte count with a unit of 1,000.
    static func bytes(_ count: Int) -> String {
        var value = Double(count)
        for unit in ["B", "kB", "MB", "GB"] {
            if value < 1000 { return decimal(value, unit == "B" ? 0 : 1) + " " + unit }
            value /= 1000
        }
        return decimal(value, 1) + " TB"
    }

    /// A moment in seconds since 1970, as ISO 8601 writes it in UTC.
    static func time(_ seconds: Int) -> String {
        Date(timeIntervalSince1970: Double(seconds)).formatted(.iso8601)
    }
}
