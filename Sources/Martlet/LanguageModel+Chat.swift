// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import MartletTokenizer

extension LanguageModel {
    /// Token ids of a prompt.
    ///
    /// - Throws: `MartletError` without a tokenizer.
    public func promptTokens(
        _ text: String, system: String? = nil, raw: Bool = false
    ) throws -> [Int32] {
        try tokens(text)
    }
}
