/* The layout of a table file, version 2. Little-endian, natural alignment.
 *
 * The file is a header of one page, then one region for each section. A section is an array
 * of which the first `used` items are in use; `capacity` items fit its region. Items are
 * appended and never moved. A reader may come at any moment, even after SIGKILL, so:
 *
 *   - an appended item is complete before `used` counts it;
 *   - an entry is complete before its address becomes nonzero, and its address becomes zero
 *     before it is written again.
 *
 * stanch/sampler/tablefile.py reads this layout; a change here needs a new version there.
 */
#ifndef STANCH_TABLE_FORMAT_H
#define STANCH_TABLE_FORMAT_H

#include <stdint.h>

#define TABLE_MAGIC "STANCHT\n"
#define TABLE_VERSION 2u
#define TABLE_HEADER_BYTES 4096u

enum table_state { TABLE_RUNNING = 1, TABLE_STOPPED = 2 };

enum table_section {
    SECTION_STRINGS,      /* bytes, UTF-8, without terminators */
    SECTION_FUNCTIONS,    /* table_function */
    SECTION_FRAMES,       /* table_frame */
    SECTION_STACK_FRAMES, /* uint32_t: numbers of frames, leaf first, stack after stack */
    SECTION_STACKS,       /* table_stack */
    SECTION_ENTRIES,      /* table_entry */
    SECTION_MAPPINGS,     /* table_mapping */
    SECTION_LABELS,       /* table_label */
    SECTION_COUNT
};

enum table_drop { DROP_TABLE_FULL, DROP_NO_SPACE, DROP_COUNT };

typedef struct {
    uint64_t offset;
    uint32_t item_bytes;
    uint32_t capacity;
    _Atomic uint32_t used;
    uint32_t reserved; /* items whose pages the file system has promised */
} table_section_header;

typedef struct {
    uint32_t name_offset;
    uint32_t file_offset;
    uint16_t name_bytes;
    uint16_t file_bytes;
    int32_t first_line;
} table_function;

/* A native frame has FRAME_NATIVE and the number of its mapping in `function`, and in `line`
 * the offset of the instruction from the mapping's start, as an unsigned number. */
#define FRAME_NATIVE 0x80000000u

typedef struct {
    uint32_t function;
    int32_t line;
} table_frame;

/* A library's executable segment, as in pprof. */
typedef struct {
    uint64_t start; /* addresses in the process */
    uint64_t end;
    uint64_t file_start; /* offset of `start` in the library's file */
    uint32_t path_offset;
    uint32_t build_id_offset; /* hexadecimal text; empty when the library has none */
    uint16_t path_bytes;
    uint16_t build_id_bytes;
    uint32_t unused;
} table_mapping;

/* Whose memory a sample is: the name of the thread and of the route or job. Label 0 is empty,
 * label 1 stands for all that came when the section was full. */
typedef struct {
    uint32_t thread_offset;
    uint32_t route_offset;
    uint16_t thread_bytes;
    uint16_t route_bytes;
} table_label;

typedef struct {
    uint32_t first_frame; /* index into SECTION_STACK_FRAMES */
    uint32_t depth;
    double alloc_objects; /* since the start, weighted */
    double alloc_bytes;
} table_stack;

typedef struct {
    _Atomic uint64_t address; /* 0: free; then `size_bytes` is the next free entry plus 1 */
    uint64_t size_bytes;
    uint64_t birth_ns;       /* since the start of the table, monotonic */
    uint64_t birth_requests; /* requests counted before the birth */
    uint32_t stack;
    uint32_t interval_bytes; /* the mean gap this sample was drawn with */
    uint32_t domain;         /* 0 RAW, 1 MEM, 2 OBJ, 3 DOMAIN_NATIVE */
    uint32_t label;
} table_entry;

/* From `uptime_ns` on, gaps were drawn with this mean. */
typedef struct {
    uint64_t uptime_ns;
    uint32_t interval_bytes;
    uint32_t unused;
} table_interval;

#define TABLE_INTERVALS 32u

typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint64_t pid;
    uint64_t start_unix_ns;
    _Atomic uint64_t uptime_ns; /* at the last sample or snapshot, monotonic */
    _Atomic uint32_t state;
    uint32_t interval_bytes; /* mean gap in force */
    uint64_t limit_bytes;    /* memory limit at the start, 0 when unknown */
    _Atomic uint64_t requests;
    _Atomic uint64_t samples;
    _Atomic uint64_t dropped[DROP_COUNT];
    uint64_t overhead_ns; /* time spent in the slow paths */
    uint64_t live_samples;
    double live_bytes;
    double live_objects;
    uint32_t python_version; /* PY_VERSION_HEX */
    uint32_t unused;
    table_section_header sections[SECTION_COUNT];
    char service[128]; /* UTF-8, NUL-terminated */
    uint64_t labels_refused; /* samples that got LABEL_OVERFLOW for want of room */
    _Atomic uint32_t intervals_used;
    uint32_t unused_too;
    table_interval intervals[TABLE_INTERVALS]; /* oldest first; the last one may be rewritten */
    double alloc_objects; /* sampled or not, since the start: an estimate, the sum of all weights */
    double live_native_bytes; /* the part of live_bytes of DOMAIN_NATIVE */
} table_header;

_Static_assert(sizeof(table_header) <= TABLE_HEADER_BYTES, "the header fits its page");
_Static_assert(sizeof(table_entry) == 48, "the entry is as tablefile.py reads it");
_Static_assert(sizeof(table_stack) == 24, "the stack is as tablefile.py reads it");
_Static_assert(sizeof(table_mapping) == 40, "the mapping is as tablefile.py reads it");
_Static_assert(sizeof(table_label) == 12, "the label is as tablefile.py reads it");

#define DOMAIN_NATIVE 3u

/* The frames kept of a stack: the innermost ones. */
#define TABLE_MAX_DEPTH 128u

/* Stack 0 has no frames: allocated where no Python code was running.
 * Stack 1 has one frame that says that the table of stacks is full. */
#define STACK_NO_PYTHON 0u
#define STACK_OVERFLOW 1u

#define LABEL_NONE 0u
#define LABEL_OVERFLOW 1u

#endif
