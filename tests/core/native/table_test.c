/* Unit tests of the parts of the core that know no Python: idmap, sampling, table.
 *
 * A plain program: each check prints where it failed and ends with exit code 1.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "idmap.h"
#include "sampling.h"
#include "table.h"

/* A random series of puts and removes agrees with a plain array. */
static void idmap_agrees_with_an_array(void) {
    enum { KEYS = 5000 };
    static uint32_t truth[KEYS];
    for (int i = 0; i < KEYS; i++) truth[i] = IDMAP_NONE;
    idmap map;
    idmap_init(&map, KEYS);
    srand(1);
    for (int step = 0; step < 400000; step++) {
        uint32_t at = (uint32_t)rand() % KEYS;
        uint64_t key = ((uint64_t)at + 1) * 4096; /* like addresses: low bits all zero */
        if (rand() % 3) {
            truth[at] = (uint32_t)step;
            CHECK(idmap_put(&map, key, (uint32_t)step));
        } else {
            CHECK(idmap_remove(&map, key) == truth[at]);
            truth[at] = IDMAP_NONE;
        }
    }
    uint32_t used = 0;
    for (int i = 0; i < KEYS; i++) {
        CHECK(idmap_get(&map, ((uint64_t)i + 1) * 4096) == truth[i]);
        used += truth[i] != IDMAP_NONE;
    }
    CHECK(map.used == used);
    idmap_free(&map);
}

static void idmap_refuses_beyond_its_bound(void) {
    idmap map;
    idmap_init(&map, 10);
    for (uint64_t key = 1; key <= 10; key++) CHECK(idmap_put(&map, key, 0));
    CHECK(!idmap_put(&map, 11, 0));
    CHECK(idmap_put(&map, 10, 7) && idmap_get(&map, 10) == 7);
    idmap_clear(&map);
    CHECK(map.used == 0 && idmap_get(&map, 10) == IDMAP_NONE);
    idmap_free(&map);
}

/* The mean of 100,000 gaps is the interval, within five standard errors. */
static void gaps_have_the_mean_asked_for(void) {
    sampling_rng rng = {.state = 42};
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        int64_t gap = sampling_draw_gap(&rng, 524288);
        CHECK(gap >= 1);
        sum += (double)gap;
    }
    CHECK(fabs(sum / 100000 / 524288 - 1) < 5 / sqrt(100000));
    CHECK(sampling_weight(1ull << 40, 524288) == 1.0);
    CHECK(fabs(sampling_weight(1, 524288) / 524288.5 - 1) < 1e-6);
    CHECK(sampling_weight(0, 524288) == sampling_weight(1, 524288));
}

/* Each gap and weight is what libm's logarithm and exponential give, within 1e-8 of it. */
static void gaps_and_weights_agree_with_libm(void) {
    sampling_rng rng = {.state = 7};
    for (int i = 0; i < 1000000; i++) {
        int64_t gap = sampling_draw_gap(&rng, UINT32_MAX);
        uint64_t drawn = rng.state * 0x2545f4914f6cdd1dull;
        double exact = -log(((double)(drawn >> 11) + 0.5) * 0x1p-53) * UINT32_MAX;
        CHECK(fabs((double)gap - exact) <= 1 + 1e-8 * exact);
    }
    for (uint64_t size = 1; size < 1u << 24; size += 1 + size / 64) {
        double exact = -1.0 / expm1(-(double)size / 524288);
        CHECK(fabs(sampling_weight(size, 524288) / exact - 1) < 1e-8);
    }
}

static uint32_t a_stack(const char *name) {
    uint32_t function = table_function_locked(name, strlen(name), "app.py", 6, 1);
    uint32_t frame = table_frame_locked(function, 10);
    return table_stack_locked(&frame, 1);
}

static const table_options OPTIONS = {.interval_bytes = 1024, .service = "unit"};

static void table_counts_what_is_alive(void) {
    CHECK(table_start(&OPTIONS) == 0);
    CHECK(table_start(&OPTIONS) != 0); /* already runs */
    table_lock();
    uint32_t stack = a_stack("f");
    CHECK(stack == a_stack("f") && stack != a_stack("g"));
    for (uintptr_t i = 1; i <= 10000; i++) table_insert_locked((void *)(i * 16), 100, stack, 1024, 2, LABEL_NONE);
    CHECK(table_header_now()->live_samples == 10000);
    CHECK(fabs(table_header_now()->live_bytes / (10000 * 100 * sampling_weight(100, 1024)) - 1) < 1e-9);
    table_entry removed;
    for (uintptr_t i = 1; i <= 10000; i += 2) CHECK(table_remove_locked((void *)(i * 16), &removed));
    CHECK(!table_remove_locked((void *)16, NULL));
    CHECK(removed.size_bytes == 100 && removed.stack == stack);
    CHECK(filter_maybe(&table_filter, (void *)32));
    /* Freed entries are used again, so the table does not grow. */
    uint32_t used = table_header_now()->sections[SECTION_ENTRIES].used;
    for (uintptr_t i = 1; i <= 10000; i += 2) table_restore_locked((void *)(i * 16), &removed);
    CHECK(table_header_now()->sections[SECTION_ENTRIES].used == used);
    /* An address that is entered twice, since its free was not seen, counts once. */
    table_insert_locked((void *)16, 100, stack, 1024, 2, LABEL_NONE);
    CHECK(table_header_now()->live_samples == 10000);
    table_unlock();
    size_t need = table_snapshot(NULL, 0);
    uint8_t *copy = malloc(need);
    CHECK(table_snapshot(copy, need) == need);
    CHECK(!memcmp(copy, TABLE_MAGIC, 8));
    free(copy);
    table_stop();
    CHECK(table_snapshot(NULL, 0) == 0);
}

static void labels_are_bounded(void) {
    CHECK(table_start(&OPTIONS) == 0);
    table_lock();
    CHECK(table_label_locked("", 0, "", 0) == LABEL_NONE);
    uint32_t label = table_label_locked("main", 4, "/cart", 5);
    CHECK(label > LABEL_OVERFLOW && label == table_label_locked("main", 4, "/cart", 5));
    CHECK(label != table_label_locked("main/", 5, "cart", 4));
    char route[16];
    for (int i = 0; i < 6000; i++)
        label = table_label_locked("", 0, route, (size_t)snprintf(route, sizeof route, "%d", i));
    CHECK(label == LABEL_OVERFLOW && table_header_now()->labels_refused > 1900);
    CHECK(table_header_now()->dropped[DROP_TABLE_FULL] == 0);
    table_unlock();
    table_stop();
}

static bool held_in_handler;

static void look(int signal) {
    (void)signal;
    held_in_handler = table_held_here();
}

static void holder_is_told_even_in_a_signal_handler(void) {
    signal(SIGUSR1, look);
    CHECK(!table_held_here());
    table_lock();
    raise(SIGUSR1);
    CHECK(held_in_handler && table_held_here());
    table_unlock();
    raise(SIGUSR1);
    CHECK(!held_in_handler && !table_held_here());
}

static void native_frames_stand_before_their_caller(void) {
    CHECK(table_start(&OPTIONS) == 0);
    table_lock();
    uint32_t mapping = table_mapping_locked(0x1000, 0x2000, 0, "/lib/a.so", 9, "ab", 2);
    uint32_t native[TABLE_MAX_DEPTH];
    for (uint32_t i = 0; i < TABLE_MAX_DEPTH; i++)
        native[i] = table_frame_locked(FRAME_NATIVE | mapping, (int32_t)i);
    uint32_t python = a_stack("caller");
    CHECK(table_stack_beneath_locked(native, 0, python) == python);
    uint32_t joined = table_stack_beneath_locked(native, 3, python);
    CHECK(joined == table_stack_beneath_locked(native, 3, python) && joined != python);
    const uint8_t *base = (const uint8_t *)table_header_now();
    const table_section_header *sections = table_header_now()->sections;
    const table_stack *stacks = (const table_stack *)(base + sections[SECTION_STACKS].offset);
    const uint32_t *frames = (const uint32_t *)(base + sections[SECTION_STACK_FRAMES].offset);
    CHECK(stacks[joined].depth == 3 + stacks[python].depth);
    CHECK(!memcmp(frames + stacks[joined].first_frame, native, 3 * sizeof *native));
    CHECK(frames[stacks[joined].first_frame + 3] == frames[stacks[python].first_frame]);
    joined = table_stack_beneath_locked(native, TABLE_MAX_DEPTH, python);
    CHECK(stacks[joined].depth == TABLE_MAX_DEPTH);
    table_insert_locked((void *)16, 100, joined, 1024, DOMAIN_NATIVE, LABEL_NONE);
    table_insert_locked((void *)32, 100, python, 1024, 2, LABEL_NONE);
    CHECK(table_header_now()->live_native_bytes * 2 == table_header_now()->live_bytes);
    table_remove_locked((void *)16, NULL);
    CHECK(table_header_now()->live_native_bytes == 0 && table_header_now()->live_bytes > 0);
    table_unlock();
    table_stop();
}

static void intervals_are_kept_and_bounded(void) {
    CHECK(table_start(&OPTIONS) == 0);
    table_lock();
    const table_header *header = table_header_now();
    CHECK(header->intervals_used == 1 && header->intervals[0].interval_bytes == 1024);
    for (uint32_t i = 1; i <= 2 * TABLE_INTERVALS; i++) table_set_interval_locked(1024 + i);
    CHECK(header->intervals_used == TABLE_INTERVALS);
    CHECK(header->intervals[1].interval_bytes == 1025);
    CHECK(header->intervals[TABLE_INTERVALS - 1].interval_bytes == 1024 + 2 * TABLE_INTERVALS);
    CHECK(header->interval_bytes == 1024 + 2 * TABLE_INTERVALS);
    table_unlock();
    table_stop();
}

static void table_full_drops_and_counts(void) {
    CHECK(table_start(&OPTIONS) == 0);
    table_lock();
    uint32_t capacity = table_header_now()->sections[SECTION_ENTRIES].capacity;
    for (uintptr_t i = 1; i <= capacity + 1000; i++)
        table_insert_locked((void *)(i * 16), 100, STACK_NO_PYTHON, 1024, 0, LABEL_NONE);
    CHECK(table_header_now()->live_samples == capacity);
    CHECK(table_header_now()->dropped[DROP_TABLE_FULL] == 1000);
    char name[32];
    uint32_t stack = 0;
    for (int i = 0; stack != IDMAP_NONE && i < 1 << 20; i++) {
        snprintf(name, sizeof name, "function_%d", i);
        stack = IDMAP_NONE;
        uint32_t function = table_function_locked(name, strlen(name), "app.py", 6, 1);
        if (function != IDMAP_NONE) stack = table_stack_locked(&(uint32_t){table_frame_locked(function, 1)}, 1);
    }
    CHECK(stack == IDMAP_NONE);
    table_unlock();
    table_stop();
}

static void child_writes_to_a_copy(const char *path) {
    CHECK(table_start(&OPTIONS) == 0);
    CHECK(table_move_to_file(path) == 0);
    table_lock();
    uint32_t stack = a_stack("f");
    for (uintptr_t i = 1; i <= 100; i++) table_insert_locked((void *)(i * 16), 100, stack, 1024, 2, LABEL_NONE);
    table_unlock();
    pid_t child = fork();
    if (child == 0) {
        table_lock();
        CHECK(table_active_locked());
        CHECK(table_header_now()->pid == (uint64_t)getpid());
        CHECK(table_header_now()->samples == 0 && table_header_now()->live_samples == 100);
        for (uintptr_t i = 1; i <= 100; i++) CHECK(table_remove_locked((void *)(i * 16), NULL));
        table_unlock();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(table_header_now()->live_samples == 100);
    table_stop();
    unlink(path);
}

enum { CHURN_ROUNDS = 200 };

/* A child of a bare clone(), which runs no fork handler, keeps its hands off the table. */
static void child_of_a_bare_clone(const char *path) {
    CHECK(table_start(&(table_options){.interval_bytes = 4096, .service = ""}) == 0);
    CHECK(table_move_to_file(path) == 0);
    long pid = syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
    if (pid == 0) {
        table_lock();
        _exit(table_active_locked() ? 1 : 0);
    }
    int status;
    CHECK(waitpid((pid_t)pid, &status, 0) == pid && status == 0);
    table_lock();
    CHECK(table_active_locked());
    table_unlock();
    table_stop();
}

static void *churn(void *argument) {
    uintptr_t base = (uintptr_t)argument << 32;
    for (int round = 0; round < CHURN_ROUNDS; round++) {
        for (uintptr_t i = 1; i <= 200; i++) {
            table_lock();
            if (table_active_locked()) table_insert_locked((void *)(base + i * 16), 64, a_stack("t"), 1024, 1, LABEL_NONE);
            table_unlock();
        }
        for (uintptr_t i = 1; i <= 200; i++) {
            table_lock();
            if (table_active_locked()) table_remove_locked((void *)(base + i * 16), NULL);
            table_unlock();
        }
    }
    return NULL;
}

/* Children that start while their parent goes on writing get a table that is whole. */
static void children_of_a_busy_parent(const char *path) {
    CHECK(table_start(&OPTIONS) == 0);
    CHECK(table_move_to_file(path) == 0);
    pthread_t threads[2];
    for (uintptr_t i = 0; i < 2; i++) CHECK(!pthread_create(&threads[i], NULL, churn, (void *)(i + 1)));
    for (int i = 0; i < 300; i++) {
        pid_t child = fork();
        if (child == 0) {
            table_lock();
            table_header *header = table_header_now();
            table_entry *entries = (table_entry *)((uint8_t *)header + header->sections[SECTION_ENTRIES].offset);
            uint64_t alive = 0;
            for (uint32_t e = 0; e < header->sections[SECTION_ENTRIES].used; e++) alive += entries[e].address != 0;
            CHECK(alive == header->live_samples);
            table_unlock();
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    table_stop();
    unlink(path);
}

static volatile sig_atomic_t forks_in_handler;

static void fork_in_handler(int number) {
    (void)number;
    pid_t child = fork();
    if (child == 0) {
        table_lock(); /* must not wait, wherever the parent was */
        table_unlock();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    forks_in_handler++;
}

/* A crash reporter may fork in a signal handler, also while this very thread has the lock. */
static void forks_within_the_lock(const char *path) {
    CHECK(table_start(&OPTIONS) == 0);
    CHECK(table_move_to_file(path) == 0);
    struct sigaction action = {.sa_handler = fork_in_handler, .sa_flags = SA_RESTART}, before;
    CHECK(sigaction(SIGUSR1, &action, &before) == 0);
    for (int i = 0; i < 20; i++) {
        table_lock();
        table_insert_locked((void *)16, 100, STACK_NO_PYTHON, 1024, 0, LABEL_NONE);
        raise(SIGUSR1);
        CHECK(table_active_locked() && table_remove_locked((void *)16, NULL));
        table_unlock();
        raise(SIGUSR1);
    }
    CHECK(forks_in_handler == 40);
    sigaction(SIGUSR1, &before, NULL);
    CHECK(table_header_now()->pid == (uint64_t)getpid());
    table_stop();
    unlink(path);
}

/* What a library's own fork handler does, run where ours has the lock already. */
static void reentry_finds_an_inactive_table(void) {
    CHECK(table_start(&OPTIONS) == 0);
    table_lock();
    CHECK(table_active_locked());
    table_lock();
    CHECK(!table_active_locked());
    table_unlock();
    CHECK(table_active_locked());
    table_unlock();
    table_stop();
}

static void the_end_is_marked_without_the_lock(const char *path) {
    CHECK(table_start(&OPTIONS) == 0);
    CHECK(table_move_to_file(path) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(table_move_to_file(path) == 0); /* unlinks the parent's, which stays mapped */
        table_lock();
        table_end_now();
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(table_header_now()->state == TABLE_RUNNING);
    FILE *left = fopen(path, "rb");
    table_header header;
    CHECK(left && fread(&header, sizeof header, 1, left) == 1 && header.state == TABLE_STOPPED);
    fclose(left);
    table_stop();
    unlink(path);
}

static void threads_and_snapshots_together(void) {
    CHECK(table_start(&OPTIONS) == 0);
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) CHECK(!pthread_create(&threads[i], NULL, churn, (void *)(i + 1)));
    static uint8_t buffer[1 << 22];
    for (int i = 0; i < 200; i++) CHECK(table_snapshot(buffer, sizeof buffer) > 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK(table_header_now()->live_samples == 0);
    table_stop();
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    idmap_agrees_with_an_array();
    idmap_refuses_beyond_its_bound();
    gaps_have_the_mean_asked_for();
    gaps_and_weights_agree_with_libm();
    table_counts_what_is_alive();
    labels_are_bounded();
    holder_is_told_even_in_a_signal_handler();
    native_frames_stand_before_their_caller();
    intervals_are_kept_and_bounded();
    table_full_drops_and_counts();
    child_writes_to_a_copy(arguments[1]);
    child_of_a_bare_clone(arguments[1]);
    children_of_a_busy_parent(arguments[1]);
    forks_within_the_lock(arguments[1]);
    reentry_finds_an_inactive_table();
    the_end_is_marked_without_the_lock(arguments[1]);
    threads_and_snapshots_together();
    puts("all well");
    return 0;
}
