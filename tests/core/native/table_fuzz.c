/* Random operations on the live table against a model that is too simple to be wrong.
 *
 *     table_fuzz FILE SEED OPERATIONS
 *
 * The same seed gives the same operations. A difference is told with the seed and the number of
 * the operation, by exit code 1; "N operations" on stdout and exit code 0 is a pass.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "idmap.h"
#include "sampling.h"
#include "table.h"

enum { BLOCKS = 3000, TEXTS = 200, KEPT_STACKS = 500, KEPT_LABELS = 300 };

static uint64_t random_state;
static unsigned long operation, seed;

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s, seed %lu, operation %lu\n", __FILE__, __LINE__,        \
                    #condition, seed, operation);                                              \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

static uint32_t draw(uint32_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32) % below;
}

/* ---- the model ---- */

static struct {
    bool alive;
    uint64_t size_bytes;
    uint32_t stack, interval_bytes, domain, label;
} blocks[BLOCKS];

static struct {
    uint32_t number, depth, frames[8];
} stacks[KEPT_STACKS];
static uint32_t stack_count;

static struct {
    uint32_t number;
    char thread[16], route[16];
} labels[KEPT_LABELS];
static uint32_t label_count;

static const char *path;
static bool in_file;

/* Several share a bit of the filter, and runs of the map's hash are long. */
static void *address_of(uint32_t block) {
    return (void *)(0x7f0000000000ull + (uint64_t)(block % 7) * (FILTER_BITS << 4) +
                    (uint64_t)(block / 7) * 16);
}

static void begin(void) {
    table_options options = {.interval_bytes = 1 + draw(1 << 20), .service = "fuzz"};
    CHECK(table_start(&options) == 0);
    memset(blocks, 0, sizeof blocks);
    stack_count = label_count = 0;
    in_file = false;
}

/* ---- the comparison ---- */

static void compare_entries(const uint8_t *base) {
    const table_header *header = (const table_header *)base;
    const table_section_header *section = &header->sections[SECTION_ENTRIES];
    const table_entry *entries = (const table_entry *)(base + section->offset);
    uint32_t alive = 0, found = 0;
    double bytes = 0;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        if (!blocks[i].alive) continue;
        alive++;
        bytes += sampling_weight(blocks[i].size_bytes, blocks[i].interval_bytes) *
                 (double)blocks[i].size_bytes;
        CHECK(filter_maybe(&table_filter, address_of(i)));
    }
    static bool seen[BLOCKS];
    memset(seen, 0, sizeof seen);
    for (uint32_t e = 0; e < section->used; e++) {
        uint64_t address = entries[e].address;
        if (!address) continue;
        uint32_t column = (uint32_t)((address - 0x7f0000000000ull) / (FILTER_BITS << 4));
        uint32_t row = (uint32_t)(address >> 4 & (FILTER_BITS - 1));
        uint32_t block = row * 7 + column;
        CHECK(block < BLOCKS && blocks[block].alive && !seen[block]);
        seen[block] = true;
        CHECK(entries[e].size_bytes == blocks[block].size_bytes);
        CHECK(entries[e].stack == blocks[block].stack);
        CHECK(entries[e].interval_bytes == blocks[block].interval_bytes);
        CHECK(entries[e].domain == blocks[block].domain);
        CHECK(entries[e].label == blocks[block].label);
        found++;
    }
    CHECK(found == alive && header->live_samples == alive);
    CHECK(fabs(header->live_bytes - bytes) <= 1e-6 * (bytes + 1e6));
}

static void compare_stacks(const uint8_t *base) {
    const table_section_header *sections = ((const table_header *)base)->sections;
    const table_stack *found = (const table_stack *)(base + sections[SECTION_STACKS].offset);
    const uint32_t *frames = (const uint32_t *)(base + sections[SECTION_STACK_FRAMES].offset);
    for (uint32_t i = 0; i < stack_count; i++) {
        const table_stack *stack = &found[stacks[i].number];
        CHECK(stacks[i].number < sections[SECTION_STACKS].used);
        CHECK(stack->depth == stacks[i].depth);
        CHECK(!memcmp(frames + stack->first_frame, stacks[i].frames, stack->depth * 4));
    }
}

static void compare_labels(const uint8_t *base) {
    const table_section_header *sections = ((const table_header *)base)->sections;
    const table_label *found = (const table_label *)(base + sections[SECTION_LABELS].offset);
    const char *strings = (const char *)(base + sections[SECTION_STRINGS].offset);
    for (uint32_t i = 0; i < label_count; i++) {
        const table_label *label = &found[labels[i].number];
        CHECK(label->thread_bytes == strlen(labels[i].thread));
        CHECK(!memcmp(strings + label->thread_offset, labels[i].thread, label->thread_bytes));
        CHECK(label->route_bytes == strlen(labels[i].route));
        CHECK(!memcmp(strings + label->route_offset, labels[i].route, label->route_bytes));
    }
}

static void compare(const uint8_t *base) {
    compare_entries(base);
    compare_stacks(base);
    compare_labels(base);
}

static void compare_file(void) {
    if (!in_file) return;
    int file = open(path, O_RDONLY);
    struct stat found;
    CHECK(file >= 0 && fstat(file, &found) == 0);
    uint8_t *content = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_SHARED, file, 0);
    CHECK(content != MAP_FAILED);
    close(file);
    compare(content);
    munmap(content, (size_t)found.st_size);
}

static void compare_snapshot(void) {
    size_t need = table_snapshot(NULL, 0);
    CHECK(need >= TABLE_HEADER_BYTES);
    uint8_t *copy = malloc(need);
    CHECK(copy && table_snapshot(copy, need - 1) == need && table_snapshot(copy, need) == need);
    compare(copy);
    free(copy);
}

/* ---- the operations ---- */

static void insert(void) {
    uint32_t i = draw(BLOCKS);
    blocks[i].alive = true;
    blocks[i].size_bytes = draw(4) ? draw(100000) : (uint64_t)draw(1 << 30) << draw(17);
    blocks[i].stack = stack_count && draw(5) ? stacks[draw(stack_count)].number : draw(2);
    blocks[i].interval_bytes = 1 + draw(1 << draw(31));
    blocks[i].domain = draw(4);
    blocks[i].label = label_count && draw(2) ? labels[draw(label_count)].number : draw(2);
    table_insert_locked(address_of(i), blocks[i].size_bytes, blocks[i].stack,
                        blocks[i].interval_bytes, blocks[i].domain, blocks[i].label);
}

static void remove_or_restore(void) {
    uint32_t i = draw(BLOCKS);
    table_entry removed;
    CHECK(table_remove_locked(address_of(i), &removed) == blocks[i].alive);
    if (!blocks[i].alive) return;
    CHECK(removed.size_bytes == blocks[i].size_bytes && removed.stack == blocks[i].stack);
    blocks[i].alive = draw(3) == 0;
    if (blocks[i].alive) table_restore_locked(address_of(i), &removed);
}

static uint32_t a_frame(void) {
    char name[300], file[40];
    int bytes = snprintf(name, sizeof name, "%0*u", 1 + (int)draw(250), draw(TEXTS));
    int file_bytes = snprintf(file, sizeof file, "%u.py", draw(20));
    uint32_t function = table_function_locked(name, (size_t)bytes, file, (size_t)file_bytes,
                                              (int32_t)draw(10));
    if (function == IDMAP_NONE) return IDMAP_NONE; /* full */
    CHECK(function == table_function_locked(name, (size_t)bytes, file, (size_t)file_bytes,
                                            ((table_function *)((uint8_t *)table_header_now() +
                                             table_header_now()->sections[SECTION_FUNCTIONS].offset))
                                                [function].first_line));
    return table_frame_locked(function, (int32_t)draw(100));
}

static void intern_stack(void) {
    uint32_t frames[8], depth = draw(9);
    for (uint32_t i = 0; i < depth; i++)
        if ((frames[i] = a_frame()) == IDMAP_NONE) return;
    uint32_t number = table_stack_locked(frames, depth);
    if (number == IDMAP_NONE) return;
    CHECK(number == table_stack_locked(frames, depth));
    for (uint32_t i = 0; i < stack_count; i++) {
        bool same = stacks[i].depth == depth && !memcmp(stacks[i].frames, frames, depth * 4);
        CHECK(same == (stacks[i].number == number));
    }
    uint32_t at = stack_count < KEPT_STACKS ? stack_count++ : draw(KEPT_STACKS);
    stacks[at].number = number;
    stacks[at].depth = depth;
    memcpy(stacks[at].frames, frames, depth * sizeof *frames);
}

static void intern_label(void) {
    char thread[16] = "", route[16] = "";
    if (draw(3)) snprintf(thread, sizeof thread, "t%u", draw(40));
    if (draw(3)) snprintf(route, sizeof route, "/%u", draw(60));
    uint32_t number = table_label_locked(thread, strlen(thread), route, strlen(route));
    CHECK(number == table_label_locked(thread, strlen(thread), route, strlen(route)));
    if (number == LABEL_OVERFLOW) return;
    CHECK((number == LABEL_NONE) == (!*thread && !*route));
    uint32_t at = label_count < KEPT_LABELS ? label_count++ : draw(KEPT_LABELS);
    labels[at].number = number;
    memcpy(labels[at].thread, thread, sizeof thread);
    memcpy(labels[at].route, route, sizeof route);
}

static void fork_and_compare(void) {
    pid_t child = fork();
    if (child == 0) {
        table_lock();
        CHECK(table_active_locked());
        compare((const uint8_t *)table_header_now());
        for (int i = 0; i < 50; i++) {
            insert();
            remove_or_restore();
            intern_stack();
        }
        compare((const uint8_t *)table_header_now());
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void locked(void (*change)(void)) {
    table_lock();
    CHECK(table_active_locked());
    change();
    table_unlock();
}

static void operate(void) {
    uint32_t chance = draw(10000);
    if (chance < 4500) {
        locked(insert);
    } else if (chance < 8500) {
        locked(remove_or_restore);
    } else if (chance < 9400) {
        locked(intern_stack);
    } else if (chance < 9900) {
        locked(intern_label);
    } else if (chance < 9950) {
        table_lock();
        table_set_interval_locked(1 + draw(1 << 20));
        compare((const uint8_t *)table_header_now());
        table_unlock();
    } else if (chance < 9970) {
        compare_snapshot();
    } else if (chance < 9985) {
        compare_file();
    } else if (chance < 9993) {
        fork_and_compare();
    } else if (chance < 9998) {
        CHECK(table_move_to_file(path) == 0);
        in_file = true;
        compare_file();
    } else {
        table_stop();
        if (in_file) CHECK(unlink(path) == 0);
        begin();
    }
}

int main(int count, char **arguments) {
    CHECK(count == 4);
    path = arguments[1];
    seed = strtoul(arguments[2], NULL, 10);
    random_state = idmap_mix(seed + 1);
    unsigned long operations = strtoul(arguments[3], NULL, 10);
    begin();
    for (operation = 0; operation < operations; operation++) operate();
    compare_snapshot();
    table_stop();
    unlink(path);
    printf("%lu operations\n", operation);
    return 0;
}
