// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

extension LoadTrace {
    /// A time, as seconds of which only differences count.
    struct Moment {
        let seconds: Double
        let isDate: Bool
    }

    /// Seconds of a number in a unit, or since 1970 of a date and a time of day, in UTC unless an offset follows.
    static func moment(_ text: String, unit: Double) -> Moment? {
        if let value = Double(text) {
            guard value.isFinite, abs(value) < 1e15 else { return nil }
            return Moment(seconds: value * unit, isDate: false)
        }
        let parts = text.split { $0 == " " || $0 == "T" }
        guard parts.count == 2 else { return nil }
        let time = parts[1].prefix { !"+-Z".contains($0) }
        guard let day = day(parts[0]), let second = secondOfDay(time),
            let offset = offset(parts[1].dropFirst(time.count))
        else { return nil }
        return Moment(seconds: Double(day) * 86_400 + second - offset, isDate: true)
    }

    /// Days since 1970 of `2023-11-16`.
    private static func day(_ text: Substring) -> Int? {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 3, let year = parts[0], let month = parts[1], let day = parts[2],
            1970...9999 ~= year, 1...12 ~= month, day >= 1,
            day <= days(year, month + 1, 1) - days(year, month, 1)
        else { return nil }
        return days(year, month, day)
    }

    /// Seconds of `18:15:46.68`.
    private static func secondOfDay(_ text: Substring) -> Double? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map { Double($0) }
        guard parts.count == 3, let hour = parts[0], let minute = parts[1], let second = parts[2],
            0..<24 ~= hour, 0..<60 ~= minute, 0..<61 ~= second
        else { return nil }
        return hour * 3600 + minute * 60 + second
    }

    /// Seconds of nothing, `Z`, `+01`, `-0530` or `+05:30`.
    private static func offset(_ text: Substring) -> Double? {
        if text.isEmpty || text == "Z" { return 0 }
        var digits = text.dropFirst()
        let colon = digits.index(digits.startIndex, offsetBy: 2, limitedBy: digits.endIndex)
        if digits.count == 5, let colon, digits[colon] == ":" { digits.remove(at: colon) }
        guard let sign = text.first, sign != "Z", digits.allSatisfy(\.isWholeNumber),
            digits.count == 2 || digits.count == 4, let hours = Int(digits.prefix(2)),
            let minutes = digits.count == 4 ? Int(digits.suffix(2)) : 0,
            0..<24 ~= hours, 0..<60 ~= minutes
        else { return nil }
        return Double((hours * 60 + minutes) * 60) * (sign == "-" ? -1 : 1)
    }

    /// Days since 1970 of a date of the Gregorian calendar, the month up to 13; years begin in March, so that a leap day ends
    /// one.
    private static func days(_ year: Int, _ month: Int, _ day: Int) -> Int {
        let marchYear = month > 2 ? year : year - 1
        let marchMonth = month > 2 ? month - 3 : month + 9
        let leaps = marchYear / 4 - marchYear / 100 + marchYear / 400
        return marchYear * 365 + leaps + (marchMonth * 153 + 2) / 5 + day - 1 - 719_468
    }
}
