/* A radix sort by the first bits of a stack's name, then by group; what is equal so far, which for
 * names that are well mixed is next to nothing, is moved into its place one by one. */
#include "order.h"

#include <stdlib.h>

enum { KEY_BITS = 33, DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

/* A row with the first bits of its stack's name. */
struct entry {
    uint64_t key;
    uint32_t row;
};

static void sort_by_digit(const struct entry *from, struct entry *to, size_t count, int shift)
{
    size_t place[DIGITS] = {0}, before = 0;
    for (size_t at = 0; at < count; at++)
        place[from[at].key >> shift & (DIGITS - 1)]++;
    for (size_t digit = 0; digit < DIGITS; digit++) {
        size_t own = place[digit];
        place[digit] = before;
        before += own;
    }
    for (size_t at = 0; at < count; at++)
        to[place[from[at].key >> shift & (DIGITS - 1)]++] = from[at];
}

static void sort_by_group(const struct entry *from, const uint32_t *groups, size_t *place,
                          size_t group_count, size_t count, uint32_t *order)
{
    size_t before = 0;
    for (size_t row = 0; row < count; row++)
        place[groups[row]]++;
    for (size_t group = 0; group < group_count; group++) {
        size_t own = place[group];
        place[group] = before;
        before += own;
    }
    for (size_t at = 0; at < count; at++)
        order[place[groups[from[at].row]]++] = from[at].row;
}

static int is_before(const struct digest *one, const struct digest *other)
{
    return one->high != other->high ? one->high < other->high : one->low < other->low;
}

static void sort_the_rest(const struct digest *stacks, const uint32_t *groups, size_t count,
                          uint32_t *order)
{
    size_t moves = 4 * count;
    for (size_t next = 1; next < count; next++) {
        uint32_t row = order[next];
        size_t place = next;
        while (place > 0 && groups[order[place - 1]] == groups[row]
               && is_before(&stacks[row], &stacks[order[place - 1]]) && moves > 0) {
            order[place] = order[place - 1];
            place--;
            moves--;
        }
        order[place] = row;
    }
}

int order_rows(const struct digest *stacks, const uint32_t *groups, size_t group_count,
               size_t count, uint32_t *order)
{
    struct entry *entries = malloc((count + 1) * sizeof *entries);
    struct entry *other = malloc((count + 1) * sizeof *other);
    size_t *place = calloc(group_count + 1, sizeof *place);
    int result = -1;
    if (entries == NULL || other == NULL || place == NULL)
        goto done;
    for (size_t row = 0; row < count; row++)
        entries[row] = (struct entry){stacks[row].high >> (64 - KEY_BITS), (uint32_t)row};
    for (int shift = 0; shift < KEY_BITS; shift += DIGIT_BITS) {
        struct entry *sorted = other;
        sort_by_digit(entries, sorted, count, shift);
        other = entries;
        entries = sorted;
    }
    sort_by_group(entries, groups, place, group_count, count, order);
    sort_the_rest(stacks, groups, count, order);
    result = 0;
done:
    free(entries);
    free(other);
    free(place);
    return result;
}
