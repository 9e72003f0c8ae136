/* Reading a protocol buffer field by field: https://protobuf.dev/programming-guides/encoding/ */
#ifndef STANCH_WIRE_H
#define STANCH_WIRE_H

#include "pprof.h"

struct field {
    uint64_t number;
    int is_bytes;       /* whether `bytes` holds the value, else `value` does */
    uint64_t value;
    struct slice bytes;
};

/* A varint at *at, which moves on. Returns 0, or -1 at the end of the data. */
static inline int wire_varint(const uint8_t **at, const uint8_t *end, uint64_t *value)
{
    uint64_t result = 0;
    if (*at < end && **at < 0x80) { /* most are this small */
        *value = *(*at)++;
        return 0;
    }
    for (int shift = 0; shift < 64 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        result |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = result;
            return 0;
        }
    }
    return -1;
}

/* The next field. Returns 1, 0 at the end, -1 when the data makes no sense. */
static inline int wire_field(struct slice *data, struct field *field)
{
    const uint8_t *at = data->at, *end = data->at + data->size;
    uint64_t tag, size;
    if (at == end)
        return 0;
    if (wire_varint(&at, end, &tag) < 0 || tag >> 3 == 0)
        return -1;
    field->number = tag >> 3;
    field->is_bytes = 0;
    field->value = 0;
    switch (tag & 7) {
    case 0:
        if (wire_varint(&at, end, &field->value) < 0)
            return -1;
        break;
    case 1:
        if (end - at < 8)
            return -1;
        at += 8;
        break;
    case 2:
        if (wire_varint(&at, end, &size) < 0 || size > (size_t)(end - at))
            return -1;
        field->is_bytes = 1;
        field->bytes = (struct slice){at, (size_t)size};
        at += size;
        break;
    case 5:
        if (end - at < 4)
            return -1;
        at += 4;
        break;
    default:
        return -1;
    }
    data->size = (size_t)(end - at);
    data->at = at;
    return 1;
}

/* The numbers of a repeated field, packed or one by one. Returns 1, 0 at the end, -1 for nonsense. */
struct numbers {
    struct slice packed;
    uint64_t one;
    int has_one;
};

static inline struct numbers wire_numbers(const struct field *field)
{
    if (field->is_bytes)
        return (struct numbers){field->bytes, 0, 0};
    return (struct numbers){{NULL, 0}, field->value, 1};
}

static inline int wire_next(struct numbers *numbers, uint64_t *value)
{
    if (numbers->has_one) {
        numbers->has_one = 0;
        *value = numbers->one;
        return 1;
    }
    if (numbers->packed.size == 0)
        return 0;
    const uint8_t *at = numbers->packed.at, *end = at + numbers->packed.size;
    if (wire_varint(&at, end, value) < 0)
        return -1;
    numbers->packed = (struct slice){at, (size_t)(end - at)};
    return 1;
}

#endif
