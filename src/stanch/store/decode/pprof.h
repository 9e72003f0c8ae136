/* A pprof profile, decompressed, as rows by stack and labels. No Python here: these functions run
 * without the GIL, on bytes that a stranger sent. Every read is checked against the end of the
 * data, every count against a limit; memory is at most a small multiple of the data's size. */
#ifndef STANCH_PPROF_H
#define STANCH_PPROF_H

#include <stddef.h>
#include <stdint.h>

#include "digest.h"

/* The four values of a row, in the order of a heap profile's sample types. */
enum { ALLOC_OBJECTS, ALLOC_BYTES, LIVE_OBJECTS, LIVE_BYTES, VALUES };

struct slice {
    const uint8_t *at;
    size_t size;
};

struct function {
    uint64_t id;
    uint64_t name, file; /* numbers of strings */
    uint64_t start_line;
    struct digest digest;
};

struct line {
    uint32_t function; /* position in `functions` */
    uint64_t line;
};

struct location {
    uint64_t id, address;
    uint32_t first_line, line_count;
    struct digest digest;
};

struct label {
    uint64_t key, text; /* numbers of strings */
};

/* A set of labels: `count` of `labels` from `first` on. */
struct label_set {
    struct digest digest;
    uint32_t first, count;
};

/* One stack with one set of labels; its locations are `frame_count` of `frames` from there on. */
struct row {
    struct digest stack;
    uint32_t labels;
    uint32_t first_frame, frame_count;
    uint64_t values[VALUES];
};

/* Live bytes of a row by the start of their band of birth, in seconds since the start. */
struct birth {
    uint32_t row, second;
    uint64_t bytes;
};

/* A growing array; `size` counts elements. */
#define ARRAY(type)                                                                                \
    struct {                                                                                       \
        type *at;                                                                                  \
        size_t size, room;                                                                         \
    }

struct profile {
    ARRAY(struct slice) strings;
    ARRAY(struct slice) sample_types; /* messages */
    ARRAY(struct slice) samples;      /* messages */
    ARRAY(struct slice) comments;     /* the texts */
    ARRAY(struct function) functions;
    ARRAY(struct location) locations;
    ARRAY(struct line) lines;
    ARRAY(struct label) labels;
    ARRAY(struct label_set) label_sets;
    ARRAY(uint32_t) frames; /* positions in `locations` */
    ARRAY(struct row) rows;
    ARRAY(struct birth) births;
    struct slice period_type;
    struct slice program; /* the message of the first mapping, which is the program's own */
    uint64_t default_type; /* number of a string */
    int64_t time_nanos, duration_nanos, period;
    const char *error; /* why it failed: one clause, static */
};

struct options {
    size_t max_samples, max_frames, max_locations;
    /* Where each sample type's value goes: a position in row.values, or VALUES for nowhere. */
    const uint8_t *value_of_type;
    size_t types;
    /* Births move by `birth_offset_s` and go to bands of `band_s` seconds; 0 keeps no births. */
    double birth_offset_s;
    uint32_t band_s;
};

/* Read the tables and the header. Returns 0, or -1 with `error` set. */
int profile_read(struct profile *profile, struct slice data, const struct options *options);

/* Make the rows and the births, sorted by row and second. Returns 0, or -1 with `error` set. */
int profile_rows(struct profile *profile, const struct options *options);

/* The number of the string and of the unit of a sample type; 0 on error. */
void value_type_of(struct slice message, uint64_t *type, uint64_t *unit);

/* The numbers of the file and of the build id of the program; 0 where it has none. */
void program_of(const struct profile *profile, uint64_t *file, uint64_t *build_id);

struct slice string_of(const struct profile *profile, uint64_t number);
void profile_free(struct profile *profile);

#endif
