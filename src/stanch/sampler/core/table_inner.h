/* What table.c and intern.c share: the mapping and how items are appended to a section.
 *
 * All of it wants table_lock() held.
 */
#ifndef STANCH_TABLE_INNER_H
#define STANCH_TABLE_INNER_H

#include <stdbool.h>
#include <stdint.h>

#include "table_format.h"

extern uint8_t *table_base;

#define HEADER ((table_header *)table_base)
#define ITEMS(section, type) ((type *)(table_base + HEADER->sections[section].offset))

/* Makes room for `more` items behind `used`; false when the section or the disk is full. */
bool table_make_room(enum table_section which, uint32_t more);
/* Publishes `count` items that are complete behind `used`. */
void table_publish(enum table_section which, uint32_t count);

/* Takes the bounds of the sections, which are laid out as the table will be. */
void intern_bound(const table_header *layout);
/* Enters the reserved stacks and labels into an empty table. */
void intern_begin_locked(void);
void intern_forget_locked(void);

#endif
