// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0
//
// Prints llama.cpp's logits, f32 after f32: those of every token of a prompt computed as one batch, then
// those of further tokens computed one at a time. Cache and attention are f32.
//
// For scripts/make-baichuan-golden.py. Built against a build of llama.cpp with static libraries:
//   g++ -O2 -std=c++17 -I$LLAMA/include -I$LLAMA/ggml/include llama-logits.cpp -o llama-logits \
//     -Wl,--start-group $BUILD/src/libllama.a $BUILD/ggml/src/*.a -Wl,--end-group -fopenmp -lpthread -ldl
//
// Usage: llama-logits MODEL.gguf 1,2,3 [4,5]

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "llama.h"

static std::vector<llama_token> ids(const char *text) {
    std::vector<llama_token> result;
    std::stringstream words(text);
    for (std::string word; std::getline(words, word, ',');) result.push_back(std::stoi(word));
    return result;
}

static void decode(llama_context *context, const std::vector<llama_token> &tokens, int vocabulary, int at) {
    llama_batch batch = llama_batch_init((int)tokens.size(), 0, 1);
    batch.n_tokens = (int)tokens.size();
    for (int i = 0; i < batch.n_tokens; i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = at + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    if (llama_decode(context, batch) != 0) exit(2);
    for (int i = 0; i < batch.n_tokens; i++) {
        fwrite(llama_get_logits_ith(context, i), sizeof(float), vocabulary, stdout);
    }
    llama_batch_free(batch);
}

int main(int count, char **words) {
    if (count < 3) return 64;
    llama_model *model = llama_model_load_from_file(words[1], llama_model_default_params());
    if (!model) return 3;
    llama_context_params parameters = llama_context_default_params();
    parameters.n_ctx = 256;
    parameters.n_threads = parameters.n_threads_batch = 1;
    parameters.type_k = parameters.type_v = GGML_TYPE_F32;
    parameters.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context *context = llama_init_from_model(model, parameters);
    if (!context) return 4;
    int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    std::vector<llama_token> prompt = ids(words[2]);
    decode(context, prompt, vocabulary, 0);
    int at = (int)prompt.size();
    if (count > 3) {
        for (llama_token token : ids(words[3])) decode(context, {token}, vocabulary, at++);
    }
    return 0;
}
