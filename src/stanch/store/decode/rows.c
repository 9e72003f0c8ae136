/* Samples to rows: those of one stack and one set of labels are added up, births kept apart. */
#include <math.h>
#include <stdlib.h>

#include "array.h"
#include "idmap.h"
#include "pprof.h"
#include "wire.h"

enum { SEED_STACK = 4, SEED_LABEL = 5 };
enum { MAX_LABEL_SETS = 4096, LABEL_SLOTS = 16384, MAX_LABELS_OF_SAMPLE = 256 };
/* A stranger can choose ids that hash alike; after so many the stack is read as any other. */
enum { MOST_PROBES = 16 };
static const uint32_t NOT_KEPT = UINT32_MAX;
static const double LARGEST_SECOND = 4e9;

static const char DAMAGED[] = "its protocol buffer is damaged";
static const char NO_MEMORY[] = "there is no memory left to read it";

static int fail(struct profile *profile, const char *error)
{
    profile->error = error;
    return -1;
}

/* A stack by the bytes of its packed location ids: samples of one stack by birth and label have the
 * same ones, and most are of a stack that was read before. Its frames are in profile->frames. */
struct stack {
    struct slice ids;
    struct digest digest;
    uint32_t first_frame, frame_count;
};

/* What is needed while samples are read. */
struct reading {
    struct profile *profile;
    const struct options *options;
    struct idmap locations;
    uint32_t *slots; /* rows by stack and labels, plus one; 0 is free */
    uint32_t *stack_slots; /* stacks by their ids, plus one; 0 is free */
    size_t mask; /* of both */
    ARRAY(struct stack) stacks;
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

/* Where the stack with these ids is or will be among the slots; NULL when there is no place. */
static uint32_t *stack_slot(const struct reading *reading, struct slice ids)
{
    uint64_t hash = ids.size, word = 0;
    size_t at = 0;
    for (; at + 8 <= ids.size; at += 8) {
        memcpy(&word, ids.at + at, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, ids.at + at, ids.size - at);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    size_t slot = (size_t)(hash >> 32) & reading->mask;
    for (int probe = 0; probe < MOST_PROBES; probe++, slot = (slot + 1) & reading->mask) {
        uint32_t number = reading->stack_slots[slot];
        if (number == 0)
            return &reading->stack_slots[slot];
        struct slice known = reading->stacks.at[number - 1].ids;
        if (known.size == ids.size && memcmp(known.at, ids.at, ids.size) == 0)
            return &reading->stack_slots[slot];
    }
    return NULL;
}

/* Add the positions of the locations that are named to the stack at hand. */
static int read_ids(struct reading *reading, struct numbers numbers, size_t *frames)
{
    size_t count = *frames, most = reading->options->max_frames;
    uint64_t id;
    int more;
    while ((more = wire_next(&numbers, &id)) > 0) {
        uint32_t position;
        if (idmap_find(&reading->locations, id, &position) < 0)
            return fail(reading->profile, "a sample names a location that is not there");
        if (count < most)
            reading->stack[count++] = position;
    }
    *frames = count;
    return more < 0 ? fail(reading->profile, DAMAGED) : 0;
}

/* The first `frames` of reading->stack go to profile->frames. */
static int keep_frames(struct reading *reading, size_t frames, uint32_t *first)
{
    struct profile *profile = reading->profile;
    *first = (uint32_t)profile->frames.size;
    for (size_t frame = 0; frame < frames; frame++)
        if (APPEND(profile->frames, reading->stack[frame]) < 0)
            return -1;
    return 0;
}

/* The stack of a sample from the fields that name its locations. One packed field is what writers
 * give; several fields are added up and not remembered. */
static int stack_of(struct reading *reading, struct slice message, struct stack *stack)
{
    struct profile *profile = reading->profile;
    struct field field = {0}, packed = {0};
    size_t fields = 0, frames = 0;
    struct slice left = message;
    while (wire_field(&left, &field) > 0)
        if (field.number == 1) {
            packed = field;
            fields++;
        }
    uint32_t *slot = NULL;
    if (fields == 1 && packed.is_bytes) {
        slot = stack_slot(reading, packed.bytes);
        if (slot != NULL && *slot != 0) {
            *stack = reading->stacks.at[*slot - 1];
            return 0;
        }
    }
    while (fields > 0 && wire_field(&message, &field) > 0)
        if (field.number == 1 && read_ids(reading, wire_numbers(&field), &frames) < 0)
            return -1;
    struct digest digest = {frames, 0};
    for (size_t frame = 0; frame < frames; frame++)
        digest = digest_step(digest, profile->locations.at[reading->stack[frame]].digest);
    *stack = (struct stack){.ids = packed.bytes,
                            .digest = digest_of(SEED_STACK, &digest, sizeof digest),
                            .first_frame = NOT_KEPT,
                            .frame_count = (uint32_t)frames};
    if (slot == NULL)
        return 0;
    if (keep_frames(reading, frames, &stack->first_frame) < 0
        || APPEND(reading->stacks, *stack) < 0)
        return fail(profile, NO_MEMORY);
    *slot = (uint32_t)reading->stacks.size;
    return 0;
}

/* The row of a stack with these labels, made when there is none; NULL without memory. */
static struct row *row_of(struct reading *reading, struct stack stack, uint32_t labels)
{
    struct profile *profile = reading->profile;
    size_t slot = (size_t)(stack.digest.low ^ labels * 0x9e3779b97f4a7c15ULL) & reading->mask;
    for (; reading->slots[slot] != 0; slot = (slot + 1) & reading->mask) {
        struct row *row = &profile->rows.at[reading->slots[slot] - 1];
        if (row->stack.low == stack.digest.low && row->stack.high == stack.digest.high
            && row->labels == labels)
            return row;
    }
    if (stack.first_frame == NOT_KEPT
        && keep_frames(reading, stack.frame_count, &stack.first_frame) < 0)
        return NULL;
    struct row row = {.stack = stack.digest,
                      .labels = labels,
                      .first_frame = stack.first_frame,
                      .frame_count = stack.frame_count};
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
    size_t types = 0, first_label = profile->labels.size;
    struct slice whole = message;
    double birth_s = -1.0;
    struct field field;
    struct stack stack;
    int found;
    while ((found = wire_field(&message, &field)) > 0) {
        struct numbers numbers = wire_numbers(&field);
        int more = 0;
        if (field.number == 2) {
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
    if (stack_of(reading, whole, &stack) < 0)
        return -1;
    if (!(values[0] || values[1] || values[2] || values[3]))
        return 0;
    struct row *row = row_of(reading, stack, labels);
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

/* Writers give a stack's samples together, so births are nearly in order: each moves a few places.
 * Those of a stranger may not, so after so many moves what is left is sorted as anything is. */
static void sort_births(struct birth *at, size_t size)
{
    size_t moves = 8 * size;
    for (size_t next = 1; next < size; next++) {
        struct birth birth = at[next];
        size_t place = next;
        for (; place > 0 && by_row_and_second(&at[place - 1], &birth) > 0; place--) {
            if (moves-- == 0) {
                at[place] = birth;
                qsort(at, size, sizeof *at, by_row_and_second);
                return;
            }
            at[place] = at[place - 1];
        }
        at[place] = birth;
    }
}

static void merge_births(struct profile *profile)
{
    struct birth *at = profile->births.at;
    size_t kept = 0;
    if (profile->births.size == 0)
        return;
    sort_births(at, profile->births.size);
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
    reading.stack_slots = calloc(room, sizeof *reading.stack_slots);
    reading.label_slots = calloc(LABEL_SLOTS, sizeof *reading.label_slots);
    reading.stack = calloc(options->max_frames + 1, sizeof *reading.stack);
    if (idmap_init(&reading.locations, profile->locations.size) < 0)
        reading.locations = (struct idmap){0};
    if (!reading.slots || !reading.stack_slots || !reading.label_slots || !reading.stack
        || !reading.locations.ids || APPEND(profile->label_sets, none) < 0) {
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
    free(reading.stack_slots);
    free(reading.stacks.at);
    free(reading.label_slots);
    free(reading.stack);
    return result;
}
