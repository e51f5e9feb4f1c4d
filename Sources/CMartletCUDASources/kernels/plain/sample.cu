// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// sample_plain: the sampler of MartletBackend on the device. Fed the same logits it returns the same ids:
// probabilities are integers in units of 2^-40 of the greatest, so sums do not depend on their order, and
// equal values rank by rising id.
//
// A team of blocks per request: CLUSTER of them, 8 from sm_90 on and 1 below. Rows of a request come one after
// the other (each sees the token of the one before). The scan reads a row, and the marks behind penalties; a
// greedy row needs no more. Top-k takes the bin that holds its last token from the greatest logits of all
// threads, for k of them are k tokens. See selection.cuh for the rest.
//
// Grid (CLUSTER x requests, 1, 1), block 512, no dynamic shared memory.
//
// Bytes: V logits once from memory, V marks and V changed logits more with penalties; what a block reads again
// stands in its first cache. V = 125,696 f32 behind an emptied cache: 0.5 MB greedy, 1.5 MB with penalties,
// 0.2 and 0.5 us at C. Measured, H100, us (microseconds of the one-block kernel with histograms over all):
//
//                                       1 request           64 requests
//   CLUSTER                            8    1                8    1
//   greedy                            10   17 (31)          51   22 (53)
//   top-k 40, top-p 0.95, penalties   29  102 (1,049)      146  134 (1,211)
//   top-p 0.95, some thousand tokens  98  531 (1,866)      472  542 (2,276)
//   temperature alone                 22   86 (372)        113   93 (423)
//
// What remains is waiting: four rounds of loads that need each other, six barriers of the cluster, and chains of
// dependent operations in the list.
#include "selection.cuh"

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

/// What the step says of the block's request.
struct Request {
    int first, end, history_first, history_end;
    const u32* mask;  // [O][V / 32]; null: all tokens are allowed
    u32* marks;       // null: without a state slot
    float* adjusted;
    __device__ __forceinline__ const u32* mask_of(int o) const {
        return mask ? mask + (i64)o * ((slices.vocabulary + 31) / 32) : 0;
    }
};
__shared__ Request request;
__shared__ SamplingParameters parameters;

// ---- Scan -----------------------------------------------------------------------------------------------

/// A thread's first greatest element.
struct Best {
    float value;
    int token;
    __device__ __forceinline__ void see(int i, float x) {
        if (x > value) {
            value = x;
            token = i;
        }
    }
    __device__ __forceinline__ u64 place() const { return place_of(ordered_key(value), token); }
};
#define NO_BEST {-MARTLET_INFINITY, 0x7fffffff}

/// Stores a changed logit: too great ones become the greatest, undefined ones are forbidden.
__device__ __forceinline__ float changed(float x) {
    return x != x ? -MARTLET_INFINITY : fminf(x, 3.40282347e38f);
}

__device__ __forceinline__ float penalised(float x, u32 mark) {
    const SamplingParameters& p = parameters;
    if (mark == 0) return x;
    x = x > 0 ? __fdiv_rn(x, p.repetition_penalty) : __fmul_rn(x, p.repetition_penalty);
    u32 count = mark & ~PROMPT_MARK;
    if (count > 0) {
        x = __fsub_rn(x, p.presence_penalty);
        x = __fsub_rn(x, __fmul_rn(p.frequency_penalty, (float)count));
    }
    return changed(x);
}

__device__ __forceinline__ bool penalises() {
    const SamplingParameters& p = parameters;
    return request.marks && (p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0);
}

/// What all know of a row after its scan: places of the first greatest element of the row as given and of the
/// row with changes, and whether the row is finite as given. And this thread's greatest logit.
struct Scan {
    u64 given, changed;
    bool is_finite;
    float most;
};

/// Reads row `o`; with changes but for biases it goes to scratch.
template <bool CHANGES>
__device__ __noinline__ Scan scan(Team& team, Row given, int o) {
    const int unroll = CHANGES ? 2 : 4, v = slices.vocabulary;
    Best as_given = NO_BEST, as_changed = NO_BEST;
    u32 magnitude = 0;
    const u32* mask = request.mask_of(o);
    const u32* marks = penalises() ? request.marks : 0;
    const int end = slices.end();
    for (int q = slices.first() + lane_index(); q < end; q += 32 * unroll) {
        Quad<float> x[unroll];
        Quad<u32> mark[unroll];
        u32 allowed[unroll];
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            int at = q + 32 * u;
            if (at >= end) break;
            x[u] = given.quad(at);
            if (!CHANGES) continue;
            mark[u] = {0, 0, 0, 0};
            if (marks) mark[u] = load_quad(marks, at, v);
            allowed[u] = mask ? mask[at >> 3] >> (at & 7) * 4 : 15;
        }
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
            int at = q + 32 * u;
            if (at >= end) break;
            int first = 4 * at;
            if constexpr (CHANGES) {
#pragma unroll 1
                for (int e = 0; e < 4; ++e) {
                    float value = x[u].x[0], put = allowed[u] >> e & 1 ? value : -MARTLET_INFINITY;
                    if (first + e < v) {
                        as_given.see(first + e, value);
                        magnitude = max(magnitude, (u32)__float_as_int(value) & 0x7fffffff);
                        put = penalised(put, mark[u].x[0]);
                        as_changed.see(first + e, put);
                    }
                    x[u] = x[u].turned(put);
                    mark[u] = mark[u].turned(0);
                }
                store_quad(request.adjusted, at, v, x[u]);
            } else {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    if (first + e >= v) break;
                    as_given.see(first + e, x[u].x[e]);
                    magnitude = max(magnitude, (u32)__float_as_int(x[u].x[e]) & 0x7fffffff);
                }
            }
        }
    }
    if (!CHANGES) as_changed = as_given;
    Maxima most = team_max(team, {as_given.place(), as_changed.place(), magnitude});
    return {most.first, most.second, most.third < 0x7f800000, as_changed.value};
}

/// Works biases into the changed row, in front of penalties.
__device__ __noinline__ void add_biases(Row given, int o, const LogitBias* bias) {
    const u32* mask = request.mask_of(o);
    const u32* marks = penalises() ? request.marks : 0;
    const int count = parameters.bias_count;
#pragma unroll 1
    for (int j = threadIdx.x; j < count; j += THREADS) {
        int token = bias[j].token;
        if (token < 0 || token >= slices.vocabulary || !slices.hold(token)) continue;
        // The first pair of a token adds the later ones too, in their order.
        bool is_first = true;
#pragma unroll 1
        for (int k = 0; k < j && is_first; ++k) is_first = bias[k].token != token;
        if (!is_first) continue;
        bool allowed = !mask || (mask[token >> 5] >> (token & 31) & 1);
        float x = allowed ? given.at(token) : -MARTLET_INFINITY;
#pragma unroll 1
        for (int k = j; k < count; ++k) {
            if (bias[k].token == token) x = changed(__fadd_rn(x, bias[k].bias));
        }
        request.adjusted[token] = penalised(x, marks ? marks[token] : 0);
    }
}

// ---- Draw -----------------------------------------------------------------------------------------------

__shared__ int found_token;

/// Drops listed tokens behind the shortest run that reaches the target; returns the weight of the rest.
__device__ __noinline__ u64 keep_listed(int count, Order order, u64 target) {
    order_list(count, order);
    for_each_listed(count, [&](int j, u64 sum) {
        if (sum >= target) list.values[j] = -MARTLET_INFINITY;
    });
    int t = threadIdx.x;
    return block_sums(t < count ? order.weight(list.values[t]) : 0).total;
}

/// The least weight that min-p lets pass.
__device__ __forceinline__ u64 least_weight(float min_p) {
    return (u64)ceil(__dmul_rn((double)fminf(min_p, 1.0f), (double)WEIGHT_ONE));
}

/// The draw's point in a total weight.
__device__ __forceinline__ u64 point_in(u64 total) {
    const SamplingParameters& p = parameters;
    u64 uniform = philox(p.output_position, p.seed_low, p.seed_high) >> 8;
    u64 high = __umul64hi(total, uniform), low = total * uniform;
    return high << 40 | low >> 24;
}

/// Filters and draws in the first block. `total`: the weight of all tokens, if top-k is done or not wanted.
__device__ __noinline__ int draw_listed(int count, Order order, u64 total) {
    const SamplingParameters& p = parameters;
    if (total == 0) {
        order.kind = Order::VALUE;
        total = keep_listed(count, order, p.top_k);
    }
    order.kind = Order::PROBABILITY;
    if (p.top_p < 1) total = keep_listed(count, order, part_of(p.top_p, total));
    if (p.min_p > 0) {
        int t = threadIdx.x;
        u64 weight = t < count ? order.weight(list.values[t]) : 0;
        if (t < count && weight < least_weight(p.min_p)) {
            list.values[t] = -MARTLET_INFINITY;
            weight = 0;
        }
        total = block_sums(weight).total;
    }
    if (p.typical_p < 1) {
        // The mean surprise, summed in order of id.
        double* terms = (double*)histogram;
        order_list(count, place_by_token, [](float) { return 1ull; });
        for_each_listed(count, [&](int j, u64 before) {
            float x = order.scaled(list.values[j]);
            u64 weight = weight_of(x);
            terms[before] = weight > 0 ? __dmul_rn((double)weight, (double)x) : 0;
        });
        double sum = 0;
        for (int i = 0; i < count; ++i) sum = __dadd_rn(sum, terms[i]);
        order.mean = (float)__ddiv_rn(sum, (double)total);
        order.kind = Order::TYPICALITY;
        total = keep_listed(count, order, part_of(p.typical_p, total));
    }
    u64 point = point_in(total);
    order_list(count, place_by_token, [&](float value) { return order.weight(value); });
    for_each_listed(count, [&](int j, u64 sum) {
        if (sum <= point && point - sum < list.sizes[j]) found_token = list.tokens[j];
    });
    return found_token;
}

/// The token at the draw's point of the running sum of weights, in order of id.
__device__ __noinline__ int draw_filtered(Team& team, Row row, Filter filter, Order order) {
    auto weight = [&](int i, float value) { return filter.keeps(order, i, value) ? order.weight(value) : 0; };
    u64 own = 0, total = 0, before = 0;
    row.for_each([&](int i, float value) { own += weight(i, value); });
    Sum in_block = block_sums(own);
    own = warp_sum(own);
    const u64* sums = team.exchange(in_block.total);
    for (int r = 0; r < CLUSTER; ++r) {
        if (r == team.rank) before = total;
        total += sums[r];
    }
    before += __shfl_sync(~0u, in_block.before, 0);  // in front of this warp
    u64 point = point_in(total);
    __shared__ int found_quad;
    __shared__ u64 found_front;
    if (threadIdx.x == 0) found_token = found_quad = -1;
    __syncthreads();
    if (before <= point && point - before < own && lane_index() == 0) {
        found_quad = slices.first();
        found_front = before;
    }
    __syncthreads();
    // The run of the warp that holds it, by the whole block.
    if (found_quad >= 0) {
        u64 front = found_front;
        int end = min(found_quad + slices.each, slices.quads);
#pragma unroll 1
        for (int base = found_quad; base < end; base += THREADS) {
            int q = base + (int)threadIdx.x, first = 4 * q, left = q < end ? min(slices.vocabulary - first, 4) : 0;
            u64 weights[4] = {0, 0, 0, 0}, sum = 0;
            if (left > 0) {
                Quad<float> v = row.quad(q);
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    if (e < left) sum += weights[e] = weight(first + e, v.x[e]);
                }
            }
            Sum sums = block_sums(sum);
            u64 at = front + sums.before;
            front += sums.total;
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                if (at <= point && point - at < weights[e]) found_token = first + e;
                at += weights[e];
            }
        }
        __syncthreads();
    }
    const int* tokens = team.exchange(found_token);
    int token = -1;
    for (int r = 0; r < CLUSTER; ++r) token = max(token, tokens[r]);
    return token;
}

struct Sums {
    u64 weight;
    double product;
    __device__ __forceinline__ void add(const Sums& other) {
        weight += other.weight;
        product = __dadd_rn(product, other.product);
    }
};

/// The mean surprise of the tokens left: a sum over threads, warps, blocks in this order.
__device__ __noinline__ float mean_surprise(Team& team, Row row, Filter filter, Order order) {
    __shared__ Sums parts[WARPS];
    Sums mine = {0, 0};
    row.for_each([&](int i, float value) {
        if (!filter.keeps(order, i, value)) return;
        float x = order.scaled(value);
        u64 weight = weight_of(x);
        if (weight == 0) return;
        mine.add({weight, __dmul_rn((double)weight, (double)x)});
    });
    mine.weight = warp_sum(mine.weight);
    for (int offset = 16; offset > 0; offset >>= 1) {
        i64 other = __shfl_xor_sync(~0u, __double_as_longlong(mine.product), offset);
        mine.product = __dadd_rn(mine.product, __longlong_as_double(other));
    }
    if (lane_index() == 0) parts[warp_index()] = mine;
    __syncthreads();
    mine = parts[0];
#pragma unroll 1
    for (int w = 1; w < WARPS; ++w) mine.add(parts[w]);
    const Sums* all = team.exchange(mine);
    mine = all[0];
    for (int r = 1; r < CLUSTER; ++r) mine.add(all[r]);
    return (float)__ddiv_rn(mine.product, (double)mine.weight);
}

/// Draws a token; all blocks get it. `most`: this thread's greatest logit.
__device__ __forceinline__ int draw(Team& team, const Row& row, u64 greatest, float most) {
    const SamplingParameters& p = parameters;
    if (!(p.temperature > 0) || p.top_k == 1) return token_at(greatest);
    Filter filter = {{0, 0, 0}, 0};
    Order order = {Order::VALUE, value_at(greatest), p.temperature, 0};
    int listed = LIST + 1;
    u64 total = 0;
    if (p.top_k > 0) {
        if (p.top_k <= LIST / 2) listed = gather_best(team, row, order, p.top_k, most);
        if (listed > LIST) {
            Selection best = select(team, row, filter, order, {(u64)p.top_k, 0}, true);
            listed = best.listed;
            filter.last[Order::VALUE] = best.last;
        }
    }
    order.kind = Order::PROBABILITY;
    if (listed > LIST && p.top_p < 1) {
        Selection likely = select(team, row, filter, order, {0, p.top_p}, true);
        listed = likely.listed;
        total = likely.total;
        filter.last[Order::PROBABILITY] = likely.last;
    }
    if (listed <= LIST) {
        int token = team.rank == 0 ? draw_listed(listed, order, total) : -1;
        return team.exchange(token)[0];
    }
    if (p.min_p > 0) filter.least = least_weight(p.min_p);
    if (p.typical_p < 1) {
        order.mean = mean_surprise(team, row, filter, order);
        order.kind = Order::TYPICALITY;
        Share share = {0, p.typical_p};
        filter.last[Order::TYPICALITY] = select(team, row, filter, order, share, false).last;
        order.kind = Order::PROBABILITY;
    }
    return draw_filtered(team, row, filter, order);
}

__device__ __forceinline__ Row given_row(const SampleArguments& a, int o) {
    typedef typename Number<A>::storage Stored;
    return {(const Stored*)a.logits.base + o * a.logits.stride, true};
}

/// Log-probabilities of the row as given: of the token, and of the most likely ones.
__device__ __noinline__ void rank_tokens(const SampleArguments& a, Team& team, int o, u64 greatest, int token) {
    Row row = given_row(a, o);
    Order order = {Order::VALUE, value_at(greatest), 1, 0};
    u64 total = 0;
    float most = -MARTLET_INFINITY;
    row.for_each([&](int, float value) {
        total += order.weight(value);
        most = fmaxf(most, value);
    });
    const u64* sums = team.exchange(block_sums(total).total);
    total = 0;
    for (int r = 0; r < CLUSTER; ++r) total += sums[r];
    double weight = __ddiv_rn((double)total, (double)WEIGHT_ONE);
    double normaliser = __dadd_rn((double)order.greatest, logarithm(weight));
    bool writes = team.rank == 0;
    if (writes && threadIdx.x == 0) {
        a.log_probability[o] = (float)__dadd_rn((double)row.at(token), -normaliser);
    }
    int wanted = min(parameters.log_probability_count, TOP_LIMIT);
    if (wanted <= 0) return;
    int listed = gather_best(team, row, order, wanted, most);
    if (listed > LIST) {
        Filter filter = {{0, 0, 0}, 0};
        Selection best = select(team, row, filter, order, {(u64)wanted, 0}, true);
        listed = best.listed;
        if (listed > LIST) {
            filter.last[Order::VALUE] = best.last;
            listed = gather(team, row, [&](int i, float value) { return filter.keeps(order, i, value); });
        }
    }
    if (writes) {
        order_list(listed, order);
        for_each_listed(listed, [&](int j, u64 before) {
            if (before >= wanted) return;
            a.top_tokens[(i64)o * TOP_LIMIT + before] = list.tokens[j];
            a.top_values[(i64)o * TOP_LIMIT + before] = (float)__dadd_rn((double)list.values[j], -normaliser);
        });
        if (threadIdx.x == 0) a.top_counts[o] = min(listed, wanted);
    }
    team_barrier();  // The first block has read the others' lists.
}

// ---- Rows -----------------------------------------------------------------------------------------------

/// Forgets and remembers tokens of the request's state slot, each block those of its slice.
__device__ __forceinline__ void update_state(const SampleArguments& a) {
    u32* marks = request.marks;
    if (!marks) return;
    if (parameters.flags & RESET_STATE) {
        Quad<u32> none = {0, 0, 0, 0};
#pragma unroll 1
        for (int q = slices.first() + lane_index(); q < slices.end(); q += 32) {
            store_quad(marks, q, a.vocabulary, none);
        }
        __syncthreads();
    }
    int generated = request.history_first + parameters.prompt_history_count;
#pragma unroll 1
    for (int i = request.history_first + (int)threadIdx.x; i < request.history_end; i += THREADS) {
        int token = a.history[i];
        if (token < 0 || token >= a.vocabulary || !slices.hold(token)) continue;
        if (i < generated) {
            atomicOr(&marks[token], PROMPT_MARK);
        } else {
            atomicAdd(&marks[token], 1u);
        }
    }
    __syncthreads();
}

__device__ __forceinline__ void sample_row(const SampleArguments& a, Team& team, int o, bool is_used) {
    int token = -1, status = 2;  // not sampled
    if (team.rank == 0 && threadIdx.x == 0) {
        a.log_probability[o] = 0;
        a.top_counts[o] = 0;
    }
    if (is_used) {
        Row row = given_row(a, o);
        bool has_bias = parameters.bias_count > 0, changes = has_bias || request.mask || penalises();
        Scan found = changes ? scan<true>(team, row, o) : scan<false>(team, row, o);
        if (changes) row = {request.adjusted, false};
        if (has_bias && found.is_finite) {
            add_biases(given_row(a, o), o, a.bias + parameters.bias_start);
            __syncthreads();
            Scan again = scan<false>(team, row, o);
            found.changed = again.changed;
            found.most = again.most;
        }
        status = 1;  // not finite
        if (found.is_finite) {
            status = 3;  // no candidate
            if (value_at(found.changed) != -MARTLET_INFINITY) {
                token = draw(team, row, found.changed, found.most);
                status = 0;
                if (parameters.log_probability_count >= 0) rank_tokens(a, team, o, found.given, token);
            }
        }
    }
    if (team.rank == 0 && threadIdx.x == 0) {
        a.tokens[o] = token;
        a.status[o] = status;
        if (a.result) a.result[o] = token;
    }
    if (threadIdx.x == 0 && request.marks && token >= 0 && slices.hold(token)) {
        atomicAdd(&request.marks[token], 1u);
    }
    __syncthreads();
}

/// The first set bit from `i` on; THREADS if there is none.
__device__ __forceinline__ int next_bit(const u32* bits, int i) {
    while (i < THREADS) {
        u32 rest = bits[i >> 5] >> (i & 31);
        if (rest) return i + __ffs(rest) - 1;
        i = (i | 31) + 1;
    }
    return THREADS;
}

MARTLET_KERNEL
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, 1) sample_plain(const __grid_constant__ SampleArguments a) {
    __shared__ u32 rows[WARPS], uses[WARPS];
    Team team = Team::join();
    // What the step says of requests and the state of those before are there; only logits are waited for. One round
    // of loads: the step's arrays are as long as the grid wants.
    StepCounts step = *a.step;
    int index = blockIdx.x / CLUSTER;
    if (threadIdx.x == 0) {
        int slot = a.state_slot[index];
        bool has_state = slot >= 0 && slot < a.slot_count;
        request = {a.query_start[index], a.query_start[index + 1],
                   a.history_start[index], a.history_start[index + 1],
                   step.flags & STEP_HAS_MASK ? a.mask : 0,
                   has_state ? a.marks + (i64)slot * a.vocabulary : 0, a.adjusted + (i64)index * a.vocabulary};
        slices = slices_of(a.vocabulary, team.rank);
    }
    const int words = sizeof(SamplingParameters) / 4;
    if (threadIdx.x < words) ((u32*)&parameters)[threadIdx.x] = ((const u32*)&a.parameters[index])[threadIdx.x];
    __syncthreads();
    if (index >= step.requests) {
        wait_for_producers();
        return;
    }
    // Also in steps in which nobody draws: a long prompt's first part is remembered there.
    update_state(a);
    if (step.logit_rows == 0) {
        wait_for_producers();
        return;
    }
    for (int base = 0; base < step.logit_rows; base += THREADS) {
        // The request's rows among as many as there are threads.
        int o = base + (int)threadIdx.x, source = -1;
        u32 use = 0;
        if (o < step.logit_rows) {
            source = a.logit_rows[o];
            use = a.row_use[o];
        }
        u32 own = __ballot_sync(~0u, source >= request.first && source < request.end);
        u32 used = __ballot_sync(~0u, use & 1);
        if (lane_index() == 0) {
            rows[warp_index()] = own;
            uses[warp_index()] = used;
        }
        if (base == 0) wait_for_producers();
        __syncthreads();
#pragma unroll 1
        for (int r = next_bit(rows, 0); r < THREADS; r = next_bit(rows, r + 1)) {
            sample_row(a, team, base + r, uses[r >> 5] >> (r & 31) & 1);
        }
        __syncthreads();
    }
}
