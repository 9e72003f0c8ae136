/* What the preload library and the C core agree on.
 *
 * The library is in the process from its first instruction and knows only how to count bytes and
 * to pass calls on. The core registers itself with it when sampling starts; it stays registered
 * for the life of the process. Both may come from different installations of Stanch, so the core
 * checks `version` first.
 */
#ifndef STANCH_PRELOAD_H
#define STANCH_PRELOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/filter.h"

/* Also changes with the address filter and with the size of a removed entry. */
#define PRELOAD_VERSION 1u
#define PRELOAD_SYMBOL "stanch_preload"

/* Memory of a mapping counts from this size on; what is smaller is glue, not data. */
#define PRELOAD_MAP_BYTES (1u << 20)

/* One for each thread. */
typedef struct {
    uint64_t countdown; /* bytes to the next trial; every call subtracts, a borrow is a trial */
    uint64_t rng_state;
    uint32_t interval_bytes; /* the mean that the present gap was drawn with; 0: none drawn */
    bool busy;               /* in the core's slow path: what is called from there passes */
} preload_thread;

/* Room for the entry of a removed sample. */
typedef struct {
    uint64_t words[8];
} preload_entry;

/* What the core does for the library. None of it touches errno. */
typedef struct {
    const address_filter *filter;
    /* The thread's countdown has run out: sets it anew. Returns the mean interval in bytes that
     * the block of this size, which is yet to be allocated, is a sample of; 0 for no sample.
     * map_caller: the return address of a call to mmap, NULL for the malloc family. */
    uint32_t (*trial)(preload_thread *thread, uint64_t size_bytes, const void *map_caller);
    void (*record)(preload_thread *thread, const void *address, uint64_t size_bytes,
                   uint32_t interval_bytes);
    /* Removes the sample at an address. Returns the interval it was drawn with, 0 when there was
     * none; `entry`, unless NULL, then gets what `remember` needs to put it back. */
    uint32_t (*forget)(preload_thread *thread, const void *address, preload_entry *entry);
    void (*remember)(preload_thread *thread, const void *address, const preload_entry *entry);
} preload_core;

/* What the library exports, as the data object `stanch_preload`. */
typedef struct {
    uint32_t version;
    void (*attach)(const preload_core *core);
    preload_thread *(*thread)(void);
    const void *allocator; /* an address in the library that serves malloc behind this one */
} preload_library;

#endif
