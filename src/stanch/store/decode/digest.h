/* SipHash-1-3 with 128 bits of output (Aumasson and Bernstein): names of stacks that are the same
 * on each machine and in each version. The key is part of the format on disk. */
#ifndef STANCH_DIGEST_H
#define STANCH_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct digest {
    uint64_t low, high;
};

#define STANCH_ROTATE(x, bits) (((x) << (bits)) | ((x) >> (64 - (bits))))

static inline void digest_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = STANCH_ROTATE(v[1], 13) ^ v[0];
    v[3] = STANCH_ROTATE(v[3], 16) ^ v[2];
    v[0] = STANCH_ROTATE(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = STANCH_ROTATE(v[1], 17) ^ v[2];
    v[3] = STANCH_ROTATE(v[3], 21) ^ v[0];
    v[2] = STANCH_ROTATE(v[2], 32);
}

/* The digest of some bytes; `seed` tells kinds of things apart that have the same bytes. */
static inline struct digest digest_of(uint64_t seed, const void *data, size_t size)
{
    const uint64_t key0 = 0x7374616e63682d73ULL ^ seed, key1 = 0x7461636b2d6e616dULL;
    uint64_t v[4] = {key0 ^ 0x736f6d6570736575ULL, key1 ^ 0x646f72616e646f6dULL ^ 0xee,
                     key0 ^ 0x6c7967656e657261ULL, key1 ^ 0x7465646279746573ULL};
    const uint8_t *at = data;
    size_t left = size;
    uint64_t word;
    for (; left >= 8; at += 8, left -= 8) {
        memcpy(&word, at, 8);
        v[3] ^= word;
        digest_round(v);
        v[0] ^= word;
    }
    word = (uint64_t)size << 56;
    for (size_t byte = 0; byte < left; byte++)
        word |= (uint64_t)at[byte] << (8 * byte);
    v[3] ^= word;
    digest_round(v);
    v[0] ^= word;
    struct digest result;
    v[2] ^= 0xee;
    for (int round = 0; round < 3; round++)
        digest_round(v);
    result.low = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    for (int round = 0; round < 3; round++)
        digest_round(v);
    result.high = v[0] ^ v[1] ^ v[2] ^ v[3];
    return result;
}

/* A digest of digests, one after the other: quick, as what goes in is well mixed already. */
static inline struct digest digest_step(struct digest before, struct digest next)
{
    unsigned __int128 low = (unsigned __int128)(before.low ^ next.low ^ 0x9e3779b97f4a7c15ULL)
                            * (next.high ^ 0xd6e8feb86659fd93ULL);
    unsigned __int128 high = (unsigned __int128)(before.high ^ next.high ^ 0xa0761d6478bd642fULL)
                             * (next.low ^ 0xe7037ed1a0b428dbULL);
    return (struct digest){
        (uint64_t)low ^ (uint64_t)(low >> 64) ^ STANCH_ROTATE(before.high, 23),
        (uint64_t)high ^ (uint64_t)(high >> 64) ^ STANCH_ROTATE(before.low, 41),
    };
}

#endif
