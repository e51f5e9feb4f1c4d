// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

/// How a search with beams ranks its answers, and when it ends.
public struct BeamSettings: Sendable, Hashable {
    /// When a search ends.
    public enum Stopping: String, Sendable, Hashable, CaseIterable {
        /// When the best running beam, at its present length, is worse than every finished one.
        case heuristic
        /// As soon as as many answers have finished as there are beams.
        case early
        /// When no running beam can become better than a finished one at any length.
        case never
    }

    /// Exponent of the answer's length that its log-probability is divided by: above 0 prefers
    /// longer answers, 0 does not care.
    public var lengthPenalty: Float = 1
    /// Taken from a continuation's rank among those of its beam; 0 for off.
    ///
    /// Keeps one beam from filling all others with its own continuations (Li and Jurafsky, 2016).
    public var diversity: Float = 0
    /// When it ends.
    public var stopping = Stopping.heuristic

    /// Length penalty 1, no diversity, the heuristic end.
    public init() {}

    /// - Throws: `MartletError` `.invalidArgument` naming the setting.
    func validate() throws {
        try SamplingSettings.require(
            lengthPenalty.isFinite, "length penalty", lengthPenalty, "a finite number")
        try SamplingSettings.require(
            diversity >= 0 && diversity.isFinite, "beam diversity", diversity, "0 or more")
    }
}
