// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

import Martlet
import MartletEvaluation

/// How far a model's predictions are from another's, as rows.
enum DivergenceTable {
    static func table(_ result: Divergence, chunkCount: Int) -> Table {
        var table = Table(["measure", "value"])
        func add(_ name: String, _ value: Double) {
            table.add([.string(name), value.isFinite ? .double(value) : .null])
        }
        add("perplexity", result.perplexity)
        add("base perplexity", result.basePerplexity)
        add("KL mean", result.mean)
        add("KL mean error", result.standardError)
        add("KL median", result.percentile(0.5))
        add("KL p90", result.percentile(0.9))
        add("KL p99", result.percentile(0.99))
        add("KL p99.9", result.percentile(0.999))
        add("KL largest", result.percentile(1))
        add("same top token %", 100 * result.topAgreement)
        add("RMS probability difference %", 100 * result.probabilityDifference)
        table.add([.string("chunks"), .int(chunkCount)])
        table.add([.string("tokens"), .int(result.count)])
        return table
    }
}
