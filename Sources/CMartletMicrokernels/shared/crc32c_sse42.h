// Part of Martlet. See LICENSE.
// SPDX-License-Identifier: Apache-2.0

// CRC32C by the SSE4.2 instruction, three streams at once where there is much to do.

/// Applies a linear map of CRCs, given by its columns.
MARTLET_INLINE uint32_t martlet_crc_apply(const uint32_t columns[32], uint32_t crc) {
    uint32_t moved = 0;
    for (int bit = 0; bit < 32; bit++) moved ^= columns[bit] & (0u - (crc >> bit & 1));
    return moved;
}

static uint32_t martlet_crc32c_sse42(uint32_t seed, const void *bytes, size_t count) {
    enum { stretch = 8192 };
    const uint8_t *p = bytes;
    uint64_t crc = (uint32_t)~seed;
    if (count >= 3 * stretch) {
        // The map "append `stretch` zero bytes": that of 8 bytes, squared ten times.
        uint32_t columns[32], squared[32];
        for (int bit = 0; bit < 32; bit++) columns[bit] = (uint32_t)_mm_crc32_u64(1u << bit, 0);
        for (int bytes_done = 8; bytes_done < stretch; bytes_done *= 2) {
            for (int bit = 0; bit < 32; bit++)
                squared[bit] = martlet_crc_apply(columns, columns[bit]);
            martlet_copy(columns, squared, sizeof columns);
        }
        for (; count >= 3 * stretch; count -= 3 * stretch, p += 3 * stretch) {
            uint64_t second = 0, third = 0;
            for (size_t i = 0; i < stretch; i += 8) {
                uint64_t words[3];
                for (size_t j = 0; j < 3; j++) martlet_copy(&words[j], p + j * stretch + i, 8);
                crc = _mm_crc32_u64(crc, words[0]);
                second = _mm_crc32_u64(second, words[1]);
                third = _mm_crc32_u64(third, words[2]);
            }
            crc = martlet_crc_apply(columns, (uint32_t)crc) ^ second;
            crc = martlet_crc_apply(columns, (uint32_t)crc) ^ third;
        }
    }
    for (; count >= 8; count -= 8, p += 8) {
        uint64_t word;
        martlet_copy(&word, p, 8);
        crc = _mm_crc32_u64(crc, word);
    }
    uint32_t tail = (uint32_t)crc;
    for (; count > 0; count--) tail = _mm_crc32_u8(tail, *p++);
    return ~tail;
}
