// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletBackend
import MartletCore

extension SamplingSettings {
    /// Most answers and beams of one request.
    static let answerLimit = 256

    func validateBias(vocabularySize: Int) throws {
        for (token, bias) in logitBias {
            try Self.require(
                token >= 0 && Int(token) < vocabularySize, "logit bias token", token,
                "0 to \(vocabularySize - 1)")
            try Self.require(
                !bias.isNaN && bias != .infinity, "logit bias of token \(token)", bias,
                "a finite number or -infinity")
        }
        let limit = LogitBias.maxPerRequest
        let count = logitBias.count + stopTokens.count + badWords.count { $0.count == 1 }
        try Self.require(
            count <= limit, "count of logit biases, stop tokens and bad words of one token", count,
            "at most \(limit)")
    }

    /// Checks what looks back on the tokens before.
    func validateRuns(vocabularySize: Int) throws {
        try Self.require(noRepeatNGram >= 0, "no-repeat n-gram size", noRepeatNGram, "0 or more")
        for word in badWords {
            try Self.require(!word.isEmpty, "length of a bad word", word.count, "at least 1 token")
            for token in word {
                try Self.require(
                    token >= 0 && Int(token) < vocabularySize, "token of a bad word", token,
                    "0 to \(vocabularySize - 1)")
            }
        }
        try Self.require(
            topPDecay > 0 && topPDecay <= 1, "top-p decay", topPDecay, "above 0, at most 1")
        try Self.require(
            topPMinimum > 0 && topPMinimum <= 1, "least top-p", topPMinimum, "above 0, at most 1")
        if let token = topPReset {
            try Self.require(
                token >= 0 && Int(token) < vocabularySize, "top-p reset token", token,
                "0 to \(vocabularySize - 1)")
        }
    }

    /// Checks how many answers are wanted, and what beams go with.
    func validateAnswers() throws {
        let limit = Self.answerLimit
        try Self.require(
            (1...limit).contains(answerCount), "count of answers", answerCount, "1 to \(limit)")
        try Self.require(
            (1...limit).contains(beamCount), "count of beams", beamCount, "1 to \(limit)")
        if let bestOf {
            try Self.require(
                bestOf >= answerCount && bestOf <= limit, "best-of", bestOf,
                "\(answerCount) (the count of answers) to \(limit)")
        }
        guard beamCount > 1 else { return }
        try Self.require(
            answerCount <= beamCount, "count of answers", answerCount,
            "at most the count of beams, \(beamCount)")
        try beams.validate()
        for (name, isSet) in [("a temperature", temperature > 0), ("best-of", bestOf != nil)]
        where isSet {
            throw MartletError(
                .unsupported, "a search with \(beamCount) beams does not go with \(name)",
                mend: "Leave it out, or use 1 beam", context: ["setting": name])
        }
    }
}
