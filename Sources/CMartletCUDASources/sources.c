// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// One array and one row of the table per file under kernels/; scripts/check-kernels finds a missing one.

#include "martlet_cuda_sources.h"

static const char martlet_cuh[] = {
#embed "kernels/martlet.cuh"
};
static const char batch_linear_cu[] = {
#embed "kernels/batch/linear.cu"
};
static const char batch_linear_norm_cuh[] = {
#embed "kernels/batch/linear_norm.cuh"
};
static const char batch_linear_panels_cuh[] = {
#embed "kernels/batch/linear_panels.cuh"
};
static const char batch_linear_products_cuh[] = {
#embed "kernels/batch/linear_products.cuh"
};
static const char batch_linear_results_cuh[] = {
#embed "kernels/batch/linear_results.cuh"
};
static const char batch_linear_shape_cuh[] = {
#embed "kernels/batch/linear_shape.cuh"
};
static const char batch_linear_weights_cuh[] = {
#embed "kernels/batch/linear_weights.cuh"
};
static const char batch_wgmma_cuh[] = {
#embed "kernels/batch/wgmma.cuh"
};
static const char decode_ampere_cuh[] = {
#embed "kernels/decode/ampere.cuh"
};
static const char decode_attention_cu[] = {
#embed "kernels/decode/attention.cu"
};
static const char decode_attention_shape_cuh[] = {
#embed "kernels/decode/attention_shape.cuh"
};
static const char decode_attention_run_cuh[] = {
#embed "kernels/decode/attention_run.cuh"
};
static const char decode_attention_ending_cuh[] = {
#embed "kernels/decode/attention_ending.cuh"
};
static const char decode_linear_cu[] = {
#embed "kernels/decode/linear.cu"
};
static const char decode_mma_cuh[] = {
#embed "kernels/decode/mma.cuh"
};
static const char decode_mma16x16_cuh[] = {
#embed "kernels/decode/mma16x16.cuh"
};
static const char prefill_attention_cu[] = {
#embed "kernels/prefill/attention.cu"
};
static const char prefill_attention_mma_cu[] = {
#embed "kernels/prefill/attention_mma.cu"
};
static const char prefill_attention_products_cuh[] = {
#embed "kernels/prefill/attention_products.cuh"
};
static const char prefill_attention_tiles_cuh[] = {
#embed "kernels/prefill/attention_tiles.cuh"
};
static const char prefill_hopper_cuh[] = {
#embed "kernels/prefill/hopper.cuh"
};
static const char prefill_linear_cu[] = {
#embed "kernels/prefill/linear.cu"
};
static const char prefill_linear_mma_cu[] = {
#embed "kernels/prefill/linear_mma.cu"
};
static const char prefill_linear_shares_cuh[] = {
#embed "kernels/prefill/linear_shares.cuh"
};
static const char prefill_prompt_results_cuh[] = {
#embed "kernels/prefill/prompt_results.cuh"
};
static const char prefill_rows_cu[] = {
#embed "kernels/prefill/rows.cu"
};
static const char prefill_weight_tiles_cuh[] = {
#embed "kernels/prefill/weight_tiles.cuh"
};
static const char plain_weights_cuh[] = {
#embed "kernels/plain/weights.cuh"
};
static const char plain_sampling_cuh[] = {
#embed "kernels/plain/sampling.cuh"
};
static const char plain_selection_cuh[] = {
#embed "kernels/plain/selection.cuh"
};
static const char plain_attention_cu[] = {
#embed "kernels/plain/attention.cu"
};
static const char plain_copy_cu[] = {
#embed "kernels/plain/copy.cu"
};
static const char plain_linear_cu[] = {
#embed "kernels/plain/linear.cu"
};
static const char plain_rows_cu[] = {
#embed "kernels/plain/rows.cu"
};
static const char plain_sample_cu[] = {
#embed "kernels/plain/sample.cu"
};

#define SOURCE(path, array) {path, array, sizeof array}

static const martlet_cuda_source table[] = {
    SOURCE("batch/linear.cu", batch_linear_cu),
    SOURCE("batch/linear_norm.cuh", batch_linear_norm_cuh),
    SOURCE("batch/linear_panels.cuh", batch_linear_panels_cuh),
    SOURCE("batch/linear_products.cuh", batch_linear_products_cuh),
    SOURCE("batch/linear_results.cuh", batch_linear_results_cuh),
    SOURCE("batch/linear_shape.cuh", batch_linear_shape_cuh),
    SOURCE("batch/linear_weights.cuh", batch_linear_weights_cuh),
    SOURCE("batch/wgmma.cuh", batch_wgmma_cuh),
    SOURCE("decode/attention.cu", decode_attention_cu),
    SOURCE("decode/ampere.cuh", decode_ampere_cuh),
    SOURCE("decode/attention_shape.cuh", decode_attention_shape_cuh),
    SOURCE("decode/attention_run.cuh", decode_attention_run_cuh),
    SOURCE("decode/attention_ending.cuh", decode_attention_ending_cuh),
    SOURCE("decode/linear.cu", decode_linear_cu),
    SOURCE("decode/mma.cuh", decode_mma_cuh),
    SOURCE("decode/mma16x16.cuh", decode_mma16x16_cuh),
    SOURCE("martlet.cuh", martlet_cuh),
    SOURCE("plain/attention.cu", plain_attention_cu),
    SOURCE("plain/copy.cu", plain_copy_cu),
    SOURCE("plain/linear.cu", plain_linear_cu),
    SOURCE("plain/rows.cu", plain_rows_cu),
    SOURCE("plain/sample.cu", plain_sample_cu),
    SOURCE("plain/sampling.cuh", plain_sampling_cuh),
    SOURCE("plain/selection.cuh", plain_selection_cuh),
    SOURCE("plain/weights.cuh", plain_weights_cuh),
    SOURCE("prefill/attention.cu", prefill_attention_cu),
    SOURCE("prefill/attention_mma.cu", prefill_attention_mma_cu),
    SOURCE("prefill/attention_products.cuh", prefill_attention_products_cuh),
    SOURCE("prefill/attention_tiles.cuh", prefill_attention_tiles_cuh),
    SOURCE("prefill/hopper.cuh", prefill_hopper_cuh),
    SOURCE("prefill/linear.cu", prefill_linear_cu),
    SOURCE("prefill/linear_mma.cu", prefill_linear_mma_cu),
    SOURCE("prefill/linear_shares.cuh", prefill_linear_shares_cuh),
    SOURCE("prefill/prompt_results.cuh", prefill_prompt_results_cuh),
    SOURCE("prefill/rows.cu", prefill_rows_cu),
    SOURCE("prefill/weight_tiles.cuh", prefill_weight_tiles_cuh),
};

const martlet_cuda_source *martlet_cuda_sources(size_t *count) {
    *count = sizeof table / sizeof *table;
    return table;
}
