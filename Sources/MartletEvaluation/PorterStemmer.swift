// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// Cuts English words down to their stems: Porter's algorithm with the deviations that NLTK makes.
///
/// Source: M. Porter, "An algorithm for suffix stripping", Program 14.3 (1980); the deviations are
/// those of `nltk.stem.PorterStemmer` in its default mode, which `rouge_score` uses. Rows of its
/// tables are tried in order; the first suffix that fits decides, even if its condition fails.
package struct PorterStemmer: Sendable {
    private typealias Word = [UInt8]
    private typealias Rule = (suffix: StaticString, replacement: StaticString)

    /// The only stemmer there is.
    package init() {}

    private static let irregular: [String: String] = [
        "sky": "sky", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie",
        "news": "news", "innings": "inning", "inning": "inning", "outings": "outing",
        "outing": "outing", "cannings": "canning", "canning": "canning", "howe": "howe",
        "proceed": "proceed", "exceed": "exceed", "succeed": "succeed",
    ]

    /// The stem of a word of small ASCII letters and digits.
    package func stem(_ word: String) -> String {
        if let known = Self.irregular[word] { return known }
        var word = Word(word.utf8)
        guard word.count > 2 else { return String(decoding: word, as: UTF8.self) }
        Self.cutPlural(&word)
        Self.cutPast(&word)
        Self.turnY(&word)
        Self.shorten(&word)
        Self.apply(Self.adjectives, to: &word) { Self.measure($0) > 0 }
        Self.cutEnding(&word)
        Self.tidy(&word)
        return String(decoding: word, as: UTF8.self)
    }

    // Letters.

    /// Which letters are consonants: none of a, e, i, o, u, nor a y behind a consonant.
    private static func consonants(_ word: some Sequence<UInt8>) -> [Bool] {
        var flags: [Bool] = []
        for letter in word {
            switch letter {
            case UInt8(ascii: "a"), UInt8(ascii: "e"), UInt8(ascii: "i"), UInt8(ascii: "o"),
                UInt8(ascii: "u"):
                flags.append(false)
            case UInt8(ascii: "y"): flags.append(!(flags.last ?? false))
            default: flags.append(true)
            }
        }
        return flags
    }

    /// How often a vowel is followed by a consonant.
    private static func measure(_ stem: some Sequence<UInt8>) -> Int {
        let flags = consonants(stem)
        return zip(flags, flags.dropFirst()).count { !$0 && $1 }
    }

    private static func endsWithDoubleConsonant(_ word: Word) -> Bool {
        word.count >= 2 && word[word.count - 1] == word[word.count - 2]
            && consonants(word).last == true
    }

    /// Consonant, vowel, consonant other than w, x, y; or just a vowel and a consonant.
    private static func endsShort(_ word: Word) -> Bool {
        let flags = consonants(word)
        if word.count == 2 { return !flags[0] && flags[1] }
        guard word.count >= 3, let last = word.last else { return false }
        return flags.suffix(3) == [true, false, true]
            && ![UInt8(ascii: "w"), UInt8(ascii: "x"), UInt8(ascii: "y")].contains(last)
    }

    // Suffixes.

    private static func ends(_ word: Word, _ suffix: StaticString) -> Bool {
        suffix.withUTF8Buffer { word.count >= $0.count && word.suffix($0.count).elementsEqual($0) }
    }

    private static func replaced(
        _ word: Word, _ suffix: StaticString, _ replacement: StaticString
    ) -> Word {
        word.dropLast(suffix.utf8CodeUnitCount) + replacement.withUTF8Buffer { Word($0) }
    }

    private static func apply(
        _ rules: [Rule], to word: inout Word, where isAllowed: (ArraySlice<UInt8>) -> Bool
    ) {
        guard let rule = rules.first(where: { ends(word, $0.suffix) }) else { return }
        if isAllowed(word.dropLast(rule.suffix.utf8CodeUnitCount)) {
            word = replaced(word, rule.suffix, rule.replacement)
        }
    }

    // The steps: 1a, 1b, 1c, 2, (3 is a table), 4, 5.

    private static func cutPlural(_ word: inout Word) {
        if word.count == 4, ends(word, "ies") { return word = replaced(word, "ies", "ie") }
        apply([("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")], to: &word) { _ in true }
    }

    private static func cutPast(_ word: inout Word) {
        if ends(word, "ied") {
            return word = replaced(word, "ied", word.count == 4 ? "ie" : "i")
        }
        if ends(word, "eed") {
            return apply([("eed", "ee")], to: &word) { measure($0) > 0 }
        }
        let suffix: StaticString = ends(word, "ed") ? "ed" : "ing"
        guard ends(word, suffix) else { return }
        let stem = replaced(word, suffix, "")
        guard consonants(stem).contains(false) else { return }
        word = stem
        for (ending, replacement) in [("at", "ate"), ("bl", "ble"), ("iz", "ize")] as [Rule]
        where ends(word, ending) {
            return word = replaced(word, ending, replacement)
        }
        if endsWithDoubleConsonant(word) {
            if let last = word.last, !Word("lsz".utf8).contains(last) { word.removeLast() }
        } else if measure(word) == 1, endsShort(word) {
            word.append(UInt8(ascii: "e"))
        }
    }

    private static func turnY(_ word: inout Word) {
        apply([("y", "i")], to: &word) { $0.count > 1 && consonants($0).last == true }
    }

    private static let doubleSuffixes: [Rule] = [
        ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"),
        ("izer", "ize"), ("bli", "ble"), ("alli", "al"), ("entli", "ent"), ("eli", "e"),
        ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"), ("ator", "ate"),
        ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"),
        ("aliti", "al"), ("iviti", "ive"), ("biliti", "ble"), ("fulli", "ful"),
    ]

    private static func shorten(_ word: inout Word) {
        while ends(word, "alli"), measure(word.dropLast(4)) > 0 {
            word = replaced(word, "alli", "al")
        }
        // The l of logi counts with the stem, so that short stems work too.
        if ends(word, "logi") { return apply([("ogi", "og")], to: &word) { measure($0) > 0 } }
        apply(doubleSuffixes, to: &word) { measure($0) > 0 }
    }

    private static let adjectives: [Rule] = [
        ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"),
        ("ful", ""), ("ness", ""),
    ]

    private static let endings: [Rule] = [
        ("al", ""), ("ance", ""), ("ence", ""), ("er", ""), ("ic", ""), ("able", ""),
        ("ible", ""), ("ant", ""), ("ement", ""), ("ment", ""), ("ent", ""), ("ion", ""),
        ("ou", ""), ("ism", ""), ("ate", ""), ("iti", ""), ("ous", ""), ("ive", ""),
        ("ize", ""),
    ]

    private static func cutEnding(_ word: inout Word) {
        let isNoun = ends(word, "ion")
        apply(endings, to: &word) { stem in
            measure(stem) > 1
                && (!isNoun || stem.last == UInt8(ascii: "s") || stem.last == UInt8(ascii: "t"))
        }
    }

    private static func tidy(_ word: inout Word) {
        if ends(word, "e") {
            let stem = Word(word.dropLast())
            let count = measure(stem)
            if count > 1 || count == 1 && !endsShort(stem) { word = stem }
        }
        if ends(word, "ll"), measure(word.dropLast()) > 1 { word.removeLast() }
    }
}
