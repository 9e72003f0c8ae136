/* From a finished walk to the answer: the nodes of all paths, named. */
#ifndef STANCH_RETAIN_WRITE_H
#define STANCH_RETAIN_WRITE_H

#include "retain_walk.h"

/* Maps and fills an answer, which is a retain_answer with all that follows; NULL without memory.
 * It is `*mapped` bytes long, of which `bytes` are used. */
retain_answer *write_answer(walk *walk, size_t *mapped);

#endif
