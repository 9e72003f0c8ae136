/* Samples to rows: those of one stack and one set of labels are added up, births kept apart. */
#include <math.h>
#include <stdlib.h>

#include "array.h"
#include "idmap.h"
#include "pprof.h"
#include "wire.h"

enum { SEED_STACK = 4, SEED_LABEL = 5 };
enum { MAX_LABEL_SETS = 4096, LABEL_SLOTS = 16384, MAX_LABELS_OF_SAMPLE = 256 };
static const double LARGEST_SECOND = 4e9;

static const char DAMAGED[] = "its protocol buffer is damaged";
static const char NO_MEMORY[] = "there is no memory left to read it";

static int fail(struct profile *profile, const char *error)
{
    profile->error = error;
    return -1;
}

/* What is needed while samples are read. */
struct reading {
    struct profile *profile;
    const struct options *options;
    struct idmap locations;
    uint32_t *slots; /* rows by stack and labels, plus one; 0 is free */
    size_t mask;
    uint32_t *label_slots;  /* sets of labels, plus one; 0 is free */
    uint32_t *stack;        /* positions of the locations of the stack at hand */
};

static uint64_t sum(uint64_t one, uint64_t other)
{
    return one > UINT64_MAX - other ? UINT64_MAX : one + other;
}

/* Counts what has no place in 63 bits as the most that has. */
static uint64_t count_of(uint64_t value)
{
    return (int64_t)value < 0 ? 0 : value;
}

static int is_birth(const struct profile *profile, uint64_t key)
{
    struct slice text = string_of(profile, key);
    return text.size == 5 && memcmp(text.at, "birth", 5) == 0;
}

static struct digest label_digest(const struct profile *profile, const struct label *label)
{
    struct slice key = string_of(profile, label->key), text = string_of(profile, label->text);
    struct digest parts[2] = {digest_of(SEED_LABEL, key.at, key.size),
                              digest_of(SEED_LABEL, text.at, text.size)};
    return digest_of(SEED_LABEL, parts, sizeof parts);
}

/* The number of the set of labels that profile->labels holds from `first` on. */
static int label_set_of(struct reading *reading, size_t first, uint32_t *number)
{
    struct profile *profile = reading->profile;
    struct label_set set = {.first = (uint32_t)first,
                            .count = (uint32_t)(profile->labels.size - first)};
    for (size_t at = first; at < profile->labels.size; at++) {
        struct digest one = label_digest(profile, &profile->labels.at[at]);
        set.digest.low += one.low;
        set.digest.high += one.high;
    }
    size_t slot = set.digest.low & (LABEL_SLOTS - 1);
    for (; reading->label_slots[slot] != 0; slot = (slot + 1) & (LABEL_SLOTS - 1)) {
        *number = reading->label_slots[slot] - 1;
        const struct label_set *known = &profile->label_sets.at[*number];
        if (known->digest.low == set.digest.low && known->digest.high == set.digest.high) {
            profile->labels.size = first;
            return 0;
        }
    }
    *number = 0; /* the empty set, also for what is too much */
    if (profile->label_sets.size >= MAX_LABEL_SETS) {
        profile->labels.size = first;
        return 0;
    }
    if (APPEND(profile->label_sets, set) < 0)
        return fail(profile, NO_MEMORY);
    reading->label_slots[slot] = (uint32_t)profile->label_sets.size;
    *number = reading->label_slots[slot] - 1;
    return 0;
}

static int read_label(struct profile *profile, struct slice message, size_t first, double *birth_s)
{
    struct label label = {0};
    uint64_t number = 0;
    struct field field;
    int found;
    while ((found = wire_field(&message, &field)) > 0) {
        if (field.is_bytes)
            continue;
        if (field.number == 1)
            label.key = field.value;
        else if (field.number == 2)
            label.text = field.value;
        else if (field.number == 3)
            number = field.value;
    }
    if (found < 0)
        return fail(profile, DAMAGED);
    if (label.text == 0) {
        if (is_birth(profile, label.key))
            *birth_s = (double)(int64_t)number;
        return 0;
    }
    if (profile->labels.size - first >= MAX_LABELS_OF_SAMPLE)
        return fail(profile, "one of its samples has too many labels");
    return APPEND(profile->labels, label) < 0 ? fail(profile, NO_MEMORY) : 0;
}

/* The row of the stack at hand with these labels, made when there is none. */
static struct row *row_of(struct reading *reading, size_t frames, uint32_t labels)
{
    struct profile *profile = reading->profile;
    struct digest stack = {frames, 0};
    for (size_t frame = 0; frame < frames; frame++)
        stack = digest_step(stack, profile->locations.at[reading->stack[frame]].digest);
    stack = digest_of(SEED_STACK, &stack, sizeof stack);
    size_t slot = (size_t)(stack.low ^ labels * 0x9e3779b97f4a7c15ULL) & reading->mask;
    for (; reading->slots[slot] != 0; slot = (slot + 1) & reading->mask) {
        struct row *row = &profile->rows.at[reading->slots[slot] - 1];
        if (row->stack.low == stack.low && row->stack.high == stack.high && row->labels == labels)
            return row;
    }
    struct row row = {.stack = stack,
                      .labels = labels,
                      .first_frame = (uint32_t)profile->frames.size,
                      .frame_count = (uint32_t)frames};
    for (size_t frame = 0; frame < frames; frame++)
        if (APPEND(profile->frames, reading->stack[frame]) < 0)
            return NULL;
    if (APPEND(profile->rows, row) < 0)
        return NULL;
    reading->slots[slot] = (uint32_t)profile->rows.size;
    return &profile->rows.at[profile->rows.size - 1];
}

static int read_sample(struct reading *reading, struct slice message)
{
    struct profile *profile = reading->profile;
    const struct options *options = reading->options;
    uint64_t values[VALUES] = {0}, number;
    size_t frames = 0, types = 0, first_label = profile->labels.size;
    double birth_s = -1.0;
    struct field field;
    int found;
    while ((found = wire_field(&message, &field)) > 0) {
        struct numbers numbers = wire_numbers(&field);
        int more = 0;
        if (field.number == 1) {
            while ((more = wire_next(&numbers, &number)) > 0) {
                uint32_t position;
                if (idmap_find(&reading->locations, number, &position) < 0)
                    return fail(profile, "a sample names a location that is not there");
                if (frames < options->max_frames)
                    reading->stack[frames++] = position;
            }
        } else if (field.number == 2) {
            while ((more = wire_next(&numbers, &number)) > 0) {
                if (types < options->types && options->value_of_type[types] < VALUES) {
                    uint64_t *value = &values[options->value_of_type[types]];
                    *value = sum(*value, count_of(number));
                }
                types++;
            }
        } else if (field.number == 3 && field.is_bytes) {
            if (read_label(profile, field.bytes, first_label, &birth_s) < 0)
                return -1;
        }
        if (more < 0)
            return fail(profile, DAMAGED);
    }
    if (found < 0)
        return fail(profile, DAMAGED);
    if (types != profile->sample_types.size)
        return fail(profile, "a sample has another number of values than there are sample types");
    uint32_t labels;
    if (label_set_of(reading, first_label, &labels) < 0)
        return -1;
    if (!(values[0] || values[1] || values[2] || values[3]))
        return 0;
    struct row *row = row_of(reading, frames, labels);
    if (row == NULL)
        return fail(profile, NO_MEMORY);
    for (int value = 0; value < VALUES; value++)
        row->values[value] = sum(row->values[value], values[value]);
    if (options->band_s == 0 || birth_s < 0 || values[LIVE_BYTES] == 0)
        return 0;
    double second = fmin(fmax(birth_s + options->birth_offset_s, 0.0), LARGEST_SECOND);
    struct birth birth = {.row = (uint32_t)(row - profile->rows.at),
                          .second = (uint32_t)second / options->band_s * options->band_s,
                          .bytes = values[LIVE_BYTES]};
    return APPEND(profile->births, birth) < 0 ? fail(profile, NO_MEMORY) : 0;
}

static int by_row_and_second(const void *one, const void *other)
{
    const struct birth *a = one, *b = other;
    if (a->row != b->row)
        return a->row < b->row ? -1 : 1;
    return a->second < b->second ? -1 : a->second > b->second;
}

static void merge_births(struct profile *profile)
{
    struct birth *at = profile->births.at;
    size_t kept = 0;
    if (profile->births.size == 0)
        return;
    qsort(at, profile->births.size, sizeof *at, by_row_and_second);
    for (size_t next = 1; next < profile->births.size; next++) {
        if (at[next].row == at[kept].row && at[next].second == at[kept].second)
            at[kept].bytes = sum(at[kept].bytes, at[next].bytes);
        else
            at[++kept] = at[next];
    }
    profile->births.size = kept + 1;
}

int profile_rows(struct profile *profile, const struct options *options)
{
    struct reading reading = {.profile = profile, .options = options};
    struct label_set none = {{0, 0}, 0, 0};
    size_t room = 16;
    int result = -1;
    while (room < profile->samples.size * 2)
        room *= 2;
    reading.mask = room - 1;
    reading.slots = calloc(room, sizeof *reading.slots);
    reading.label_slots = calloc(LABEL_SLOTS, sizeof *reading.label_slots);
    reading.stack = calloc(options->max_frames + 1, sizeof *reading.stack);
    if (idmap_init(&reading.locations, profile->locations.size) < 0)
        reading.locations = (struct idmap){0};
    if (!reading.slots || !reading.label_slots || !reading.stack || !reading.locations.ids
        || APPEND(profile->label_sets, none) < 0) {
        fail(profile, NO_MEMORY);
        goto done;
    }
    reading.label_slots[0] = 1; /* the empty set's digest is zero */
    for (size_t number = 0; number < profile->locations.size; number++)
        idmap_put(&reading.locations, profile->locations.at[number].id, (uint32_t)number);
    for (size_t number = 0; number < profile->samples.size; number++)
        if (read_sample(&reading, profile->samples.at[number]) < 0)
            goto done;
    merge_births(profile);
    result = 0;
done:
    idmap_free(&reading.locations);
    free(reading.slots);
    free(reading.label_slots);
    free(reading.stack);
    return result;
}
