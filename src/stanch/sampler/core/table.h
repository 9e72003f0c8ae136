/* The live table: which sampled blocks are alive, and the stacks that allocated them.
 *
 * One table per process, in one mapping that is never unmapped once made. It starts in
 * private memory and moves into a file by table_move_to_file(); the address stays.
 * Everything here is async-fork-safe and allocates with mmap only, so it can run inside
 * allocator hooks; nothing here knows Python.
 *
 * Functions named *_locked want table_lock() held by the caller.
 */
#ifndef STANCH_TABLE_H
#define STANCH_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "filter.h"
#include "table_format.h"

typedef struct {
    uint32_t interval_bytes;
    uint64_t limit_bytes; /* 0: unknown */
    uint32_t python_version;
    const char *service; /* copied, cut at 127 bytes */
} table_options;

extern address_filter table_filter;

/* Both protect all of the table, the filter's writers and the caches in frames.c. */
void table_lock(void);
void table_unlock(void);
/* Whether this thread has the lock or waits for it: what it allocates and frees then, be it in a
 * signal handler, must not ask for it again. */
bool table_held_here(void);

/* Makes an empty table in private memory. Returns 0 or an errno value. */
int table_start(const table_options *options);
/* Moves the table into a new file (an existing file is replaced). Its mode is 0400: a store
 * into a mapping whose file somebody has shortened ends the process.
 * Returns 0 or an errno value; the table stays where it was then. */
int table_move_to_file(const char *path);
/* Marks the file as ended in good order, forgets everything, goes back to private memory. */
void table_stop(void);
/* Marks the file as ended in good order; for a process that is about to call _exit. Takes no
 * lock, so it cannot wait. */
void table_end_now(void);

/* True from table_start to table_stop, except in a child that could not get its own copy, and
 * in a signal handler that interrupted its own thread within the lock. */
bool table_active_locked(void);
/* The running table's header, or NULL before the first start; its counters are atomic. */
table_header *table_header_now(void);
/* Nanoseconds since table_start, monotonic. */
uint64_t table_uptime_ns(void);

/* Interning; IDMAP_NONE when the section is full. Equal arguments give equal numbers. */
uint32_t table_function_locked(const char *name, size_t name_bytes, const char *file,
                               size_t file_bytes, int32_t first_line);
uint32_t table_frame_locked(uint32_t function, int32_t line);
uint32_t table_stack_locked(const uint32_t *frames, uint32_t depth);
/* The stack of these frames, called by the leaf of another; cut at its outer end. Always a valid
 * number: STACK_OVERFLOW when full. */
uint32_t table_stack_beneath_locked(const uint32_t *frames, uint32_t depth, uint32_t caller);
uint32_t table_mapping_locked(uint64_t start, uint64_t end, uint64_t file_start, const char *path,
                              size_t path_bytes, const char *build_id, size_t build_id_bytes);
/* Always a valid number: LABEL_NONE when both texts are empty, LABEL_OVERFLOW when full. */
uint32_t table_label_locked(const char *thread, size_t thread_bytes, const char *route,
                            size_t route_bytes);

/* Fetches the memory that a sample at this address will be entered into, while the caller does
 * something else. */
void table_expect_locked(const void *address);
/* Enters a live sample; counts a drop when it cannot. */
void table_insert_locked(const void *address, uint64_t size_bytes, uint32_t stack,
                         uint32_t interval_bytes, uint32_t domain, uint32_t label);
/* Removes the sample at this address. If there was one and `removed` is not NULL, it gets
 * what table_restore_locked needs to put it back unchanged. */
bool table_remove_locked(const void *address, table_entry *removed);
void table_restore_locked(const void *address, const table_entry *removed);
void table_add_overhead_locked(uint64_t ns);
/* Notes that gaps are drawn with another mean from now on; when no room is left for it in the
 * header, in place of the last change. */
void table_set_interval_locked(uint32_t interval_bytes);

/* Copies every `step`-th live entry whose stack is asked for: `stacks` has a nonzero byte for each
 * such number. Writes at most `capacity` entries; `entries` may be NULL to count. Returns how many
 * there were. */
uint64_t table_live_locked(const uint8_t *stacks, uint32_t stacks_used, table_entry *entries,
                           uint32_t capacity, uint32_t step);

/* A consistent copy in the file format, with only the used items of each section.
 * table_snapshot writes at most `capacity` bytes and returns the bytes it needs. */
size_t table_snapshot(void *buffer, size_t capacity);

#endif
