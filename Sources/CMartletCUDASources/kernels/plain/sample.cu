// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// sample_plain: the sampler of MartletBackend on the device. Fed the same logits it returns the same ids:
// probabilities are integers in units of 2^-40 of the greatest, so sums do not depend on their order, and
// equal values rank by rising id.
//
// One block per request, its rows one after the other (each sees the token of the one before). Greedy rows
// read the logits once. Filters are radix selections over a bit per token: three passes of histograms and
// one that counts ties in order of id. Bytes: the row, once or a dozen times from the cache.
#include "sampling.cuh"

#define A ACTIVATION
#define THREADS 512
#define WARPS (THREADS / 32)
#define TOP_LIMIT 256

struct SampleArguments {
    const StepCounts* step;
    const i32* query_start;  // [B + 1]
    const i32* logit_rows;   // [O]
    const u32* row_use;      // [O]
    const u32* mask;         // [O][V / 32], if the step has masks
    const SamplingParameters* parameters;  // [B]
    const LogitBias* bias;
    const i32* state_slot;     // [B]
    const i32* history_start;  // [B + 1]
    const i32* history;
    u32* marks;       // [slots][V] bit 31 for the prompt, below it occurrences among generated tokens
    float* adjusted;  // [B][V] scratch
    u32* alive;       // [B][V / 32] scratch
    Rows logits;
    i32* tokens;             // [O]
    i32* status;             // [O]
    float* log_probability;  // [O]
    i32* top_tokens;         // [O][256]
    float* top_values;       // [O][256]
    i32* top_counts;         // [O]
    i32* result;             // [O] of the plan; may be absent
    i32 vocabulary, slot_count;
};

/// A row of logits, as given or with mask, bias and penalties.
struct Row {
    const float* adjusted;  // null: as given
    Rows given;
    i64 row;
    __device__ __forceinline__ float get(int i) const {
        return adjusted ? adjusted[i] : given.get<A>(row, i);
    }
};

/// What an order of tokens goes by, and what a selection adds up.
struct Order {
    enum Kind { VALUE, PROBABILITY, TYPICALITY } kind;
    float greatest, temperature, mean;
    __device__ __forceinline__ float scaled(float value) const {
        return __fdiv_rn(__fsub_rn(value, greatest), temperature);
    }
    __device__ __forceinline__ u32 key(float value) const {
        if (kind == VALUE) return ordered_key(value);
        float x = scaled(value);
        return ordered_key(kind == PROBABILITY ? x : -fabsf(__fsub_rn(mean, x)));
    }
    __device__ __forceinline__ u64 measure(float value) const {
        return kind == VALUE ? 1 : weight_of(scaled(value));
    }
};

__shared__ u64 histogram[2048];
__shared__ u64 warp_totals[WARPS];
__shared__ u64 found_remaining;
__shared__ int found_bin;
__shared__ int found_token;

__device__ __forceinline__ u64 warp_inclusive(u64 x) {
    for (int offset = 1; offset < 32; offset <<= 1) {
        u64 y = __shfl_up_sync(~0u, x, offset);
        if (lane_index() >= offset) x += y;
    }
    return x;
}

/// Sum of the values of earlier threads.
__device__ u64 block_exclusive(u64 x) {
    u64 inclusive = warp_inclusive(x);
    if (lane_index() == 31) warp_totals[warp_index()] = inclusive;
    __syncthreads();
    u64 before = 0;
    for (int w = 0; w < warp_index(); ++w) before += warp_totals[w];
    __syncthreads();
    return before + inclusive - x;
}

/// The ids of a warp: a run of whole words of 32.
__device__ __forceinline__ int first_word(int vocabulary, int warp) {
    int words = (vocabulary + 31) / 32, each = (words + WARPS - 1) / WARPS;
    return min(warp * each, words);
}

__device__ __forceinline__ bool is_alive(const u32* alive, int i) { return alive[i >> 5] >> (i & 31) & 1; }

/// Keeps the shortest run of tokens, by falling key, then rising id, that reaches the target.
__device__ __noinline__ void keep_first(const Row& row, u32* alive, int vocabulary, const Order& order, u64 target) {
    u64 remaining = target > 1 ? target : 1;
    u32 prefix = 0;
    for (int pass = 0; pass < 3; ++pass) {
        int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0, bits = pass == 2 ? 10 : 11, bins = 1 << bits;
        for (int b = threadIdx.x; b < bins; b += THREADS) histogram[b] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
            if (!is_alive(alive, i)) continue;
            float value = row.get(i);
            u32 key = order.key(value);
            if (pass == 0 || key >> (shift + bits) == prefix) {
                atomicAdd(&histogram[key >> shift & (bins - 1)], order.measure(value));
            }
        }
        __syncthreads();
        // Bins from the top; each thread a run of them.
        int each = bins / THREADS, top = bins - 1 - threadIdx.x * each;
        u64 own = 0;
        for (int j = 0; j < each; ++j) own += histogram[top - j];
        if (threadIdx.x == 0) found_bin = -1;
        u64 before = block_exclusive(own);
        if (before < remaining && before + own >= remaining) {
            int bin = top;
            while (before + histogram[bin] < remaining) before += histogram[bin--];
            found_bin = bin;
            found_remaining = remaining - before;
        }
        __syncthreads();
        int bin = found_bin;
        u64 rest = found_remaining;
        __syncthreads();
        if (bin < 0) return;  // All tokens together do not reach the target.
        remaining = rest;
        prefix = prefix << bits | (u32)bin;
    }
    // Tied tokens are kept in order of id while something remains.
    int first = first_word(vocabulary, warp_index()), end = first_word(vocabulary, warp_index() + 1);
    u64 tied = 0;
    for (int word = first; word < end; ++word) {
        int i = word * 32 + lane_index();
        if (i < vocabulary && is_alive(alive, i)) {
            float value = row.get(i);
            if (order.key(value) == prefix) tied += order.measure(value);
        }
    }
    tied = warp_sum(tied);
    u64 before = block_exclusive(lane_index() == 0 ? tied : 0);
    before = __shfl_sync(~0u, before, 0);
    for (int word = first; word < end; ++word) {
        int i = word * 32 + lane_index();
        bool keeps = false;
        u64 size = 0;
        if (i < vocabulary && is_alive(alive, i)) {
            float value = row.get(i);
            u32 key = order.key(value);
            keeps = key >= prefix;
            if (key == prefix) size = order.measure(value);
            keeps = key > prefix || key == prefix;
        }
        u64 inclusive = warp_inclusive(size);
        if (size > 0 && before + inclusive - size >= remaining) keeps = false;
        before += __shfl_sync(~0u, inclusive, 31);
        u32 kept = __ballot_sync(~0u, keeps);
        if (lane_index() == 0) alive[word] = kept;
    }
    __syncthreads();
}

__device__ __noinline__ u64 total_weight(const Row& row, const u32* alive, int vocabulary, const Order& order) {
    u64 total = 0;
    for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
        if (is_alive(alive, i)) total += weight_of(order.scaled(row.get(i)));
    }
    return block_sum(total);
}

/// Every token but the forbidden ones.
__device__ __noinline__ void make_alive(const Row& row, u32* alive, int vocabulary) {
    int first = first_word(vocabulary, warp_index()), end = first_word(vocabulary, warp_index() + 1);
    for (int word = first; word < end; ++word) {
        int i = word * 32 + lane_index();
        u32 bits = __ballot_sync(~0u, i < vocabulary && row.get(i) != -MARTLET_INFINITY);
        if (lane_index() == 0) alive[word] = bits;
    }
    __syncthreads();
}

struct Greatest {
    float value;
    int index;
    bool is_finite;
};

/// The first greatest element, and whether all are finite.
__device__ __noinline__ Greatest scan(const Row& row, int vocabulary) {
    __shared__ float values[WARPS];
    __shared__ int indices[WARPS], flags[WARPS];
    float best = -MARTLET_INFINITY;
    int index = 0x7fffffff;
    int finite = 1;
    for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
        float x = row.get(i);
        finite &= x - x == 0;
        if (x > best) {
            best = x;
            index = i;
        }
    }
    for (int offset = 16; offset > 0; offset >>= 1) {
        float x = __shfl_xor_sync(~0u, best, offset);
        int j = __shfl_xor_sync(~0u, index, offset);
        if (x > best || (x == best && j < index)) {
            best = x;
            index = j;
        }
    }
    finite = __all_sync(~0u, finite);
    if (lane_index() == 0) {
        values[warp_index()] = best;
        indices[warp_index()] = index;
        flags[warp_index()] = finite;
    }
    __syncthreads();
    Greatest result = {values[0], indices[0], flags[0] != 0};
    for (int w = 1; w < WARPS; ++w) {
        if (values[w] > result.value || (values[w] == result.value && indices[w] < result.index)) {
            result.value = values[w];
            result.index = indices[w];
        }
        result.is_finite = result.is_finite && flags[w];
    }
    __syncthreads();
    return result;
}

/// Stores a changed logit: too great ones become the greatest, undefined ones are forbidden.
__device__ __forceinline__ float changed(float x) {
    return x != x ? -MARTLET_INFINITY : fminf(x, 3.40282347e38f);
}

/// Writes the row with mask, bias and penalties to scratch; false if there are none.
__device__ bool adjust(
    const SampleArguments& a, const SamplingParameters& p, int o, const Row& given, const u32* marks,
    float* adjusted) {
    bool penalises = p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0;
    bool masks = a.step->flags & STEP_HAS_MASK;
    if (!masks && p.bias_count <= 0 && !(penalises && marks)) return false;
    const u32* mask = a.mask + (i64)o * ((a.vocabulary + 31) / 32);
    for (int i = threadIdx.x; i < a.vocabulary; i += THREADS) {
        bool allowed = !masks || (mask[i >> 5] >> (i & 31) & 1);
        adjusted[i] = allowed ? given.get(i) : -MARTLET_INFINITY;
    }
    __syncthreads();
    const LogitBias* bias = a.bias + p.bias_start;
    for (int j = threadIdx.x; j < p.bias_count; j += THREADS) {
        int token = bias[j].token;
        if (token < 0 || token >= a.vocabulary) continue;
        // The first pair of a token adds the later ones too, in their order.
        bool is_first = true;
        for (int k = 0; k < j && is_first; ++k) is_first = bias[k].token != token;
        if (!is_first) continue;
        float x = adjusted[token];
        for (int k = j; k < p.bias_count; ++k) {
            if (bias[k].token == token) x = changed(__fadd_rn(x, bias[k].bias));
        }
        adjusted[token] = x;
    }
    __syncthreads();
    if (penalises && marks) {
        for (int i = threadIdx.x; i < a.vocabulary; i += THREADS) {
            u32 mark = marks[i];
            if (mark == 0) continue;
            float x = adjusted[i];
            x = x > 0 ? __fdiv_rn(x, p.repetition_penalty) : __fmul_rn(x, p.repetition_penalty);
            u32 count = mark & ~PROMPT_MARK;
            if (count > 0) {
                x = __fsub_rn(x, p.presence_penalty);
                x = __fsub_rn(x, __fmul_rn(p.frequency_penalty, (float)count));
            }
            adjusted[i] = changed(x);
        }
        __syncthreads();
    }
    return true;
}

/// The token at a point of the running sum of weights, in order of id.
__device__ __noinline__ int token_at(const Row& row, const u32* alive, int vocabulary, const Order& order, u64 point) {
    int first = first_word(vocabulary, warp_index()), end = first_word(vocabulary, warp_index() + 1);
    u64 own = 0;
    for (int word = first; word < end; ++word) {
        int i = word * 32 + lane_index();
        if (i < vocabulary && is_alive(alive, i)) own += weight_of(order.scaled(row.get(i)));
    }
    own = warp_sum(own);
    u64 before = block_exclusive(lane_index() == 0 ? own : 0);
    before = __shfl_sync(~0u, before, 0);
    if (before <= point && point < before + own) {
        bool found = false;
        for (int word = first; word < end && !found; ++word) {
            int i = word * 32 + lane_index();
            u64 weight = 0;
            if (i < vocabulary && is_alive(alive, i)) weight = weight_of(order.scaled(row.get(i)));
            u64 inclusive = warp_inclusive(weight);
            u32 past = __ballot_sync(~0u, before + inclusive > point);
            if (past) {
                if (lane_index() == 0) found_token = word * 32 + __ffs(past) - 1;
                found = true;
            }
            before += __shfl_sync(~0u, inclusive, 31);
        }
    }
    __syncthreads();
    int token = found_token;
    __syncthreads();
    return token;
}

__device__ int draw(
    const Row& row, const SamplingParameters& p, const Greatest& greatest, u32* alive, int vocabulary) {
    if (!(p.temperature > 0) || p.top_k == 1) return greatest.index;
    make_alive(row, alive, vocabulary);
    Order order = {Order::VALUE, greatest.value, p.temperature, 0};
    if (p.top_k > 0) keep_first(row, alive, vocabulary, order, p.top_k);
    order.kind = Order::PROBABILITY;
    u64 total = total_weight(row, alive, vocabulary, order);
    if (p.top_p < 1) {
        keep_first(row, alive, vocabulary, order, part_of(p.top_p, total));
        total = total_weight(row, alive, vocabulary, order);
    }
    if (p.min_p > 0) {
        double least = ceil(__dmul_rn((double)fminf(p.min_p, 1.0f), (double)WEIGHT_ONE));
        for (int word = threadIdx.x; word < (vocabulary + 31) / 32; word += THREADS) {
            u32 bits = alive[word];
            for (u32 rest = bits; rest; rest &= rest - 1) {
                int bit = __ffs(rest) - 1;
                if (weight_of(order.scaled(row.get(word * 32 + bit))) < (u64)least) bits &= ~(1u << bit);
            }
            alive[word] = bits;
        }
        __syncthreads();
        total = total_weight(row, alive, vocabulary, order);
    }
    if (p.typical_p < 1) {
        double sum = 0;
        for (int i = threadIdx.x; i < vocabulary; i += THREADS) {
            if (!is_alive(alive, i)) continue;
            float x = order.scaled(row.get(i));
            sum += __dmul_rn((double)weight_of(x), (double)x);
        }
        __shared__ double sums[THREADS];
        sums[threadIdx.x] = sum;
        __syncthreads();
        for (int half = THREADS / 2; half > 0; half /= 2) {
            if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
            __syncthreads();
        }
        order.mean = (float)__ddiv_rn(sums[0], (double)total);
        __syncthreads();
        order.kind = Order::TYPICALITY;
        keep_first(row, alive, vocabulary, order, part_of(p.typical_p, total));
        order.kind = Order::PROBABILITY;
        total = total_weight(row, alive, vocabulary, order);
    }
    u64 uniform = philox(p.output_position, p.seed_low, p.seed_high) >> 8;
    u64 high = __umul64hi(total, uniform), low = total * uniform;
    return token_at(row, alive, vocabulary, order, high << 40 | low >> 24);
}

/// Log-probabilities of the row as given: of the token, and of the most likely ones.
__device__ void rank(
    const SampleArguments& a, const SamplingParameters& p, int o, const Row& row, float greatest,
    int token, u32* alive) {
    __shared__ int ids[TOP_LIMIT];
    __shared__ float values[TOP_LIMIT];
    __shared__ int count;
    make_alive(row, alive, a.vocabulary);
    Order order = {Order::VALUE, greatest, 1, 0};
    double weight = __ddiv_rn((double)total_weight(row, alive, a.vocabulary, order), (double)WEIGHT_ONE);
    double normaliser = __dadd_rn((double)greatest, logarithm(weight));
    if (threadIdx.x == 0) {
        a.log_probability[o] = (float)__dadd_rn((double)row.get(token), -normaliser);
        count = 0;
    }
    int wanted = min(p.log_probability_count, TOP_LIMIT);
    if (wanted > 0) {
        keep_first(row, alive, a.vocabulary, order, wanted);
        for (int i = threadIdx.x; i < a.vocabulary; i += THREADS) {
            if (!is_alive(alive, i)) continue;
            int place = atomicAdd(&count, 1);
            if (place < TOP_LIMIT) {
                ids[place] = i;
                values[place] = row.get(i);
            }
        }
        __syncthreads();
        int found = min(count, TOP_LIMIT);
        for (int j = threadIdx.x; j < found; j += THREADS) {
            int better = 0;
            for (int k = 0; k < found; ++k) {
                better += values[k] > values[j] || (values[k] == values[j] && ids[k] < ids[j]);
            }
            a.top_tokens[(i64)o * TOP_LIMIT + better] = ids[j];
            a.top_values[(i64)o * TOP_LIMIT + better] = (float)__dadd_rn((double)values[j], -normaliser);
        }
        if (threadIdx.x == 0) a.top_counts[o] = found;
    }
    __syncthreads();
}

/// Forgets and remembers tokens of the request's state slot; null without one.
__device__ u32* update_state(const SampleArguments& a, const SamplingParameters& p, int request) {
    int slot = a.state_slot[request];
    if (slot < 0 || slot >= a.slot_count) return 0;
    u32* marks = a.marks + (i64)slot * a.vocabulary;
    if (p.flags & RESET_STATE) {
        for (int i = threadIdx.x; i < a.vocabulary; i += THREADS) marks[i] = 0;
        __syncthreads();
    }
    int first = a.history_start[request], end = a.history_start[request + 1];
    for (int i = first + (int)threadIdx.x; i < end; i += THREADS) {
        int token = a.history[i];
        if (token < 0 || token >= a.vocabulary) continue;
        if (i < first + p.prompt_history_count) {
            atomicOr(&marks[token], PROMPT_MARK);
        } else {
            atomicAdd(&marks[token], 1u);
        }
    }
    __syncthreads();
    return marks;
}

MARTLET_KERNEL __launch_bounds__(THREADS, 1) sample_plain(const __grid_constant__ SampleArguments a) {
    wait_for_producers();
    int request = blockIdx.x;
    if (request >= a.step->requests) return;
    SamplingParameters p = a.parameters[request];
    u32* marks = update_state(a, p, request);
    float* adjusted = a.adjusted + (i64)request * a.vocabulary;
    u32* alive = a.alive + (i64)request * ((a.vocabulary + 31) / 32);
    int first = a.query_start[request], end = a.query_start[request + 1];
    for (int o = 0; o < a.step->logit_rows; ++o) {
        int source = a.logit_rows[o];
        if (source < first || source >= end) continue;
        int token = -1, status = 2;  // not sampled
        if (threadIdx.x == 0) {
            a.log_probability[o] = 0;
            a.top_counts[o] = 0;
        }
        if (a.row_use[o] & 1) {
            Row given = {0, a.logits, o};
            Greatest raw = scan(given, a.vocabulary), greatest = raw;
            status = 1;  // not finite
            if (raw.is_finite) {
                Row row = given;
                if (adjust(a, p, o, given, marks, adjusted)) {
                    row.adjusted = adjusted;
                    greatest = scan(row, a.vocabulary);
                }
                status = 3;  // no candidate
                if (greatest.value != -MARTLET_INFINITY) {
                    token = draw(row, p, greatest, alive, a.vocabulary);
                    status = 0;
                    if (p.log_probability_count >= 0) rank(a, p, o, given, raw.value, token, alive);
                }
            }
        }
        if (threadIdx.x == 0) {
            a.tokens[o] = token;
            a.status[o] = status;
            if (a.result) a.result[o] = token;
            if (marks && token >= 0) marks[token] += 1;
        }
        __syncthreads();
    }
}
