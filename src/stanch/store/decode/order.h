/* The order in which the engine keeps rows. No Python here: this runs without the GIL. */
#ifndef STANCH_ORDER_H
#define STANCH_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "digest.h"

/* Put the numbers of `count` rows into `order`: by group, then by stack as a number of 128 bits;
 * those of one stack in a group stay as they came. groups: of each row, below `group_count`.
 * Stacks that a stranger chose alike may be left out of order, in what is bounded time: the engine
 * sorts what it finds unsorted. Returns 0, or -1 without memory. */
int order_rows(const struct digest *stacks, const uint32_t *groups, size_t group_count,
               size_t count, uint32_t *order);

#endif
