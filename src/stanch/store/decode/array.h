/* Growing arrays: APPEND gives 0, or -1 when there is no memory and nothing has changed. */
#ifndef STANCH_ARRAY_H
#define STANCH_ARRAY_H

#include <stdint.h>
#include <stdlib.h>

static inline int array_grow(void **at, size_t *room, size_t element)
{
    size_t more = *room ? *room * 2 : 64;
    void *moved = more > SIZE_MAX / element ? NULL : realloc(*at, more * element);
    if (moved == NULL)
        return -1;
    *at = moved;
    *room = more;
    return 0;
}

#define APPEND(array, value)                                                                       \
    ((array).size == (array).room                                                                  \
             && array_grow((void **)&(array).at, &(array).room, sizeof *(array).at) < 0            \
         ? -1                                                                                      \
         : ((array).at[(array).size++] = (value), 0))

#endif
