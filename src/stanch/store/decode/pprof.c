/* The tables of a profile: strings, functions, locations, each with its digest. */
#include "pprof.h"

#include <stdlib.h>

#include "array.h"
#include "idmap.h"
#include "wire.h"

enum { SEED_FUNCTION = 1, SEED_ADDRESS = 2, SEED_LOCATION = 3 };
enum { MAX_STRINGS = 2000000, MAX_LINES = 2000000, MAX_COMMENTS = 4096, MAX_TYPES = 64 };

static const char DAMAGED[] = "its protocol buffer is damaged";
static const char NO_MEMORY[] = "there is no memory left to read it";

static int fail(struct profile *profile, const char *error)
{
    profile->error = error;
    return -1;
}

struct slice string_of(const struct profile *profile, uint64_t number)
{
    if (number < profile->strings.size)
        return profile->strings.at[number];
    return (struct slice){(const uint8_t *)"", 0};
}

void value_type_of(struct slice message, uint64_t *type, uint64_t *unit)
{
    struct field field;
    *type = *unit = 0;
    while (wire_field(&message, &field) > 0) {
        if (field.number == 1 && !field.is_bytes)
            *type = field.value;
        else if (field.number == 2 && !field.is_bytes)
            *unit = field.value;
    }
}

void program_of(const struct profile *profile, uint64_t *file, uint64_t *build_id)
{
    struct slice message = profile->program;
    struct field field;
    *file = *build_id = 0;
    while (wire_field(&message, &field) > 0) {
        if (field.number == 5 && !field.is_bytes)
            *file = field.value;
        else if (field.number == 6 && !field.is_bytes)
            *build_id = field.value;
    }
}

static int read_function(struct profile *profile, struct slice message)
{
    struct function function = {0};
    struct field field;
    int found;
    while ((found = wire_field(&message, &field)) > 0) {
        if (field.is_bytes)
            continue;
        if (field.number == 1)
            function.id = field.value;
        else if (field.number == 2)
            function.name = field.value;
        else if (field.number == 4)
            function.file = field.value;
        else if (field.number == 5)
            function.start_line = field.value;
    }
    if (found < 0)
        return fail(profile, DAMAGED);
    if (APPEND(profile->functions, function) < 0)
        return fail(profile, NO_MEMORY);
    return 0;
}

/* A line refers to its function by id until `link_locations` makes that a position. */
struct raw_line {
    uint64_t function, line;
};

static int read_line(struct profile *profile, struct slice message, struct raw_line *line)
{
    struct field field;
    int found;
    *line = (struct raw_line){0, 0};
    while ((found = wire_field(&message, &field)) > 0) {
        if (field.number == 1 && !field.is_bytes)
            line->function = field.value;
        else if (field.number == 2 && !field.is_bytes)
            line->line = field.value;
    }
    return found < 0 ? fail(profile, DAMAGED) : 0;
}

static struct digest function_digest(const struct profile *profile, const struct function *function)
{
    struct slice name = string_of(profile, function->name), file = string_of(profile, function->file);
    struct digest parts[2] = {digest_of(SEED_FUNCTION, name.at, name.size),
                              digest_of(SEED_FUNCTION, file.at, file.size)};
    return digest_of(SEED_FUNCTION, parts, sizeof parts);
}

static int read_location(struct profile *profile, struct slice message, const struct idmap *functions)
{
    struct location location = {.first_line = (uint32_t)profile->lines.size};
    struct field field;
    int found;
    while ((found = wire_field(&message, &field)) > 0) {
        if (field.number == 1 && !field.is_bytes) {
            location.id = field.value;
        } else if (field.number == 3 && !field.is_bytes) {
            location.address = field.value;
        } else if (field.number == 4 && field.is_bytes) {
            struct raw_line raw;
            uint32_t position;
            if (read_line(profile, field.bytes, &raw) < 0)
                return -1;
            if (idmap_find(functions, raw.function, &position) < 0)
                return fail(profile, "a line names a function that is not there");
            if (profile->lines.size >= MAX_LINES)
                return fail(profile, "it has too many lines");
            struct line line = {position, (int64_t)raw.line > 0 ? raw.line : 0};
            if (APPEND(profile->lines, line) < 0)
                return fail(profile, NO_MEMORY);
        }
    }
    if (found < 0)
        return fail(profile, DAMAGED);
    location.line_count = (uint32_t)profile->lines.size - location.first_line;
    if (location.line_count == 0)
        location.digest = digest_of(SEED_ADDRESS, &location.address, sizeof location.address);
    for (uint32_t number = 0; number < location.line_count; number++) {
        const struct line *line = &profile->lines.at[location.first_line + number];
        struct {
            struct digest before, function;
            uint64_t line;
        } part = {location.digest, profile->functions.at[line->function].digest, line->line};
        location.digest = digest_of(SEED_LOCATION, &part, sizeof part);
    }
    if (APPEND(profile->locations, location) < 0)
        return fail(profile, NO_MEMORY);
    return 0;
}

typedef ARRAY(struct slice) slices;

static int read_top(struct profile *profile, struct slice data, const struct options *options,
                    slices *functions, slices *locations)
{
    struct field field;
    int found, kept;
    while ((found = wire_field(&data, &field)) > 0) {
        if (!field.is_bytes) {
            if (field.number == 9)
                profile->time_nanos = (int64_t)field.value;
            else if (field.number == 10)
                profile->duration_nanos = (int64_t)field.value;
            else if (field.number == 12)
                profile->period = (int64_t)field.value;
            else if (field.number == 14)
                profile->default_type = field.value;
            if (field.number != 13) /* a comment may come unpacked */
                continue;
        }
        switch (field.number) {
        case 1:
            if (profile->sample_types.size >= MAX_TYPES)
                return fail(profile, "it has too many sample types");
            kept = APPEND(profile->sample_types, field.bytes);
            break;
        case 2:
            if (profile->samples.size >= options->max_samples)
                return fail(profile, "it has too many samples");
            kept = APPEND(profile->samples, field.bytes);
            break;
        case 3:
            if (profile->program.at == NULL)
                profile->program = field.bytes;
            kept = 0;
            break;
        case 4:
            if (locations->size >= options->max_locations)
                return fail(profile, "it has too many locations");
            kept = APPEND(*locations, field.bytes);
            break;
        case 5:
            if (functions->size >= options->max_locations)
                return fail(profile, "it has too many functions");
            kept = APPEND(*functions, field.bytes);
            break;
        case 6:
            if (profile->strings.size >= MAX_STRINGS)
                return fail(profile, "it has too many strings");
            kept = APPEND(profile->strings, field.bytes);
            break;
        case 11:
            profile->period_type = field.bytes;
            kept = 0;
            break;
        case 13: {
            struct numbers numbers = wire_numbers(&field);
            uint64_t number;
            while ((found = wire_next(&numbers, &number)) > 0) {
                /* The strings may come later, so the number is kept for now. */
                struct slice comment = {NULL, (size_t)number};
                if (profile->comments.size >= MAX_COMMENTS)
                    return fail(profile, "it has too many comments");
                if (APPEND(profile->comments, comment) < 0)
                    return fail(profile, NO_MEMORY);
            }
            if (found < 0)
                return fail(profile, DAMAGED);
            kept = 0;
            break;
        }
        default:
            kept = 0;
        }
        if (kept < 0)
            return fail(profile, NO_MEMORY);
    }
    return found < 0 ? fail(profile, DAMAGED) : 0;
}

static int read_tables(struct profile *profile, const slices *functions, const slices *locations)
{
    struct idmap by_id;
    int result = -1;
    for (size_t number = 0; number < profile->comments.size; number++)
        profile->comments.at[number] = string_of(profile, profile->comments.at[number].size);
    for (size_t number = 0; number < functions->size; number++)
        if (read_function(profile, functions->at[number]) < 0)
            return -1;
    if (idmap_init(&by_id, profile->functions.size) < 0)
        return fail(profile, NO_MEMORY);
    for (size_t number = 0; number < profile->functions.size; number++) {
        struct function *function = &profile->functions.at[number];
        function->digest = function_digest(profile, function);
        idmap_put(&by_id, function->id, (uint32_t)number);
    }
    for (size_t number = 0; number < locations->size; number++)
        if (read_location(profile, locations->at[number], &by_id) < 0)
            goto done;
    result = 0;
done:
    idmap_free(&by_id);
    return result;
}

int profile_read(struct profile *profile, struct slice data, const struct options *options)
{
    slices functions = {0}, locations = {0};
    int result = read_top(profile, data, options, &functions, &locations);
    if (result == 0 && profile->sample_types.size == 0)
        result = fail(profile, "it has no sample type");
    if (result == 0)
        result = read_tables(profile, &functions, &locations);
    free(functions.at);
    free(locations.at);
    return result;
}

void profile_free(struct profile *profile)
{
    free(profile->strings.at);
    free(profile->sample_types.at);
    free(profile->samples.at);
    free(profile->comments.at);
    free(profile->functions.at);
    free(profile->locations.at);
    free(profile->lines.at);
    free(profile->labels.at);
    free(profile->label_sets.at);
    free(profile->frames.at);
    free(profile->rows.at);
    free(profile->births.at);
}
