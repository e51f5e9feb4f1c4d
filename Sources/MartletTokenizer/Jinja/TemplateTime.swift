// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// A local time, for `strftime_now`.
package struct TemplateTime: Sendable {
    /// Year, month (1 to 12), day of the month, hour, minute and second.
    package var year, month, day, hour, minute, second: Int

    /// A time by its parts.
    package init(year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0) {
        (self.year, self.month, self.day) = (year, month, day)
        (self.hour, self.minute, self.second) = (hour, minute, second)
    }

    private static let months = [
        "January", "February", "March", "April", "May", "June", "July", "August", "September",
        "October",
        "November", "December",
    ]
    private static let weekdays = [
        "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
    ]

    private var dayOfYear: Int {
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        let lengths = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        return lengths.prefix(max(month - 1, 0)).reduce(0, +) + day
    }

    /// 0 is Sunday.
    private var weekday: Int {
        let before = year - 1
        let days = before * 365 + before / 4 - before / 100 + before / 400 + dayOfYear
        return ((days % 7) + 7) % 7
    }

    /// The time in C's `strftime` notation; nil for a directive that is not known.
    func formatted(_ format: String) -> String? {
        func padded(_ value: Int, _ width: Int = 2, _ fill: String = "0") -> String {
            let text = String(value)
            return String(repeating: fill, count: max(width - text.utf8.count, 0)) + text
        }
        let monthName = TemplateTime.months[min(max(month - 1, 0), 11)]
        let weekdayName = TemplateTime.weekdays[weekday]
        let hour12 = hour % 12 == 0 ? 12 : hour % 12
        var output = ""
        var isDirective = false
        var isBare = false
        for character in format {
            if !isDirective {
                if character == "%" { isDirective = true } else { output.append(character) }
                continue
            }
            if character == "-" {
                isBare = true
                continue
            }
            let width = isBare ? 1 : 2
            switch character {
            case "Y": output += String(year)
            case "y": output += padded(year % 100, width)
            case "m": output += padded(month, width)
            case "d": output += padded(day, width)
            case "e": output += padded(day, width, " ")
            case "H": output += padded(hour, width)
            case "I": output += padded(hour12, width)
            case "M": output += padded(minute, width)
            case "S": output += padded(second, width)
            case "p": output += hour < 12 ? "AM" : "PM"
            case "B": output += monthName
            case "b", "h": output += String(monthName.prefix(3))
            case "A": output += weekdayName
            case "a": output += String(weekdayName.prefix(3))
            case "j": output += padded(dayOfYear, isBare ? 1 : 3)
            case "w": output += String(weekday)
            case "F": output += "\(year)-\(padded(month))-\(padded(day))"
            case "T": output += "\(padded(hour)):\(padded(minute)):\(padded(second))"
            case "%": output += "%"
            default: return nil
            }
            isDirective = false
            isBare = false
        }
        return isDirective ? nil : output
    }
}
