/* A small bitmap of the addresses of live samples, in front of the table on `free`.
 *
 * 8 KiB answer "not sampled" for nearly every block without a lock. Bits are read without
 * the lock and written under it; a block's own bit is set before its address is given to
 * the host, so the host's own synchronisation orders the two.
 */
#ifndef STANCH_FILTER_H
#define STANCH_FILTER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define FILTER_BITS (1u << 16)

typedef struct {
    _Alignas(64) uint64_t words[FILTER_BITS / 64];
    uint8_t counts[FILTER_BITS]; /* samples behind each bit; 255 sticks */
} address_filter;

static inline uint32_t filter_index(const void *address) {
    return (uint32_t)((uintptr_t)address >> 4) & (FILTER_BITS - 1);
}

static inline bool filter_maybe(const address_filter *filter, const void *address) {
    uint32_t at = filter_index(address);
    return __atomic_load_n(&filter->words[at >> 6], __ATOMIC_RELAXED) >> (at & 63) & 1;
}

static inline void filter_prefetch(const address_filter *filter, const void *address) {
    uint32_t at = filter_index(address);
    __builtin_prefetch(&filter->words[at >> 6], 1);
    __builtin_prefetch(&filter->counts[at], 1);
}

/* Others may read meanwhile; what they find is either of the two. */
static inline void filter_clear(address_filter *filter) {
    for (uint32_t word = 0; word < FILTER_BITS / 64; word++)
        __atomic_store_n(&filter->words[word], 0, __ATOMIC_RELAXED);
    memset(filter->counts, 0, sizeof filter->counts);
}

static inline void filter_add(address_filter *filter, const void *address) {
    uint32_t at = filter_index(address);
    if (filter->counts[at] != UINT8_MAX && filter->counts[at]++ == 0)
        __atomic_fetch_or(&filter->words[at >> 6], 1ull << (at & 63), __ATOMIC_RELAXED);
}

static inline void filter_remove(address_filter *filter, const void *address) {
    uint32_t at = filter_index(address);
    if (filter->counts[at] != UINT8_MAX && --filter->counts[at] == 0)
        __atomic_fetch_and(&filter->words[at >> 6], ~(1ull << (at & 63)), __ATOMIC_RELAXED);
}

#endif
