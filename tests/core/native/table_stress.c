/* Threads that do to the table what hooks, readers and owners do, all at once, for the thread
 * sanitizer: it reports any access that the lock rules at the top of table.c do not order.
 *
 *     table_stress FILE ROUNDS
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "idmap.h"
#include "sampling.h"
#include "table.h"

enum { HOSTS = 4, BLOCKS = 100 };

static const char *path;
static long rounds;
static atomic_bool ended;
static const table_options OPTIONS = {.interval_bytes = 4096, .service = "stress"};

static uint32_t a_stack(uint32_t number) {
    char name[16];
    size_t bytes = (size_t)snprintf(name, sizeof name, "f%u", number % 300);
    uint32_t function = table_function_locked(name, bytes, "app.py", 6, 1);
    uint32_t frame = table_frame_locked(function, (int32_t)(number % 50));
    uint32_t stack = table_stack_locked(&frame, 1);
    return stack == IDMAP_NONE ? STACK_OVERFLOW : stack;
}

/* As hooks.c: the filter without the lock, everything else with it. */
static void *host(void *argument) {
    uintptr_t base = (uintptr_t)argument << 36;
    sampling_rng rng = {0};
    for (long round = 0; round < rounds; round++) {
        for (uintptr_t i = 1; i <= BLOCKS; i++) {
            uint64_t began = table_uptime_ns();
            table_lock();
            if (table_active_locked()) {
                uint32_t number = (uint32_t)sampling_draw_gap(&rng, 1000);
                uint32_t label = table_label_locked("t", 1, "/", number % 2);
                table_insert_locked((void *)(base + i * 16), number, a_stack(number), 4096, 1, label);
                table_add_overhead_locked(table_uptime_ns() - began);
            }
            table_unlock();
        }
        for (uintptr_t i = 1; i <= BLOCKS; i++) {
            if (!filter_maybe(&table_filter, (void *)(base + i * 16))) continue;
            table_lock();
            table_entry removed;
            if (table_active_locked() && table_remove_locked((void *)(base + i * 16), &removed) &&
                i % 3 == 0) {
                table_restore_locked((void *)(base + i * 16), &removed);
                table_remove_locked((void *)(base + i * 16), NULL);
            }
            table_unlock();
        }
    }
    return NULL;
}

static void *reader(void *unused) {
    static uint8_t buffer[1 << 23];
    while (!ended) {
        size_t need = table_snapshot(buffer, sizeof buffer);
        if (need > sizeof buffer) abort();
        table_lock();
        if (table_active_locked()) CHECK(table_header_now()->live_samples <= HOSTS * BLOCKS);
        table_unlock();
        usleep(200);
    }
    return unused;
}

static void *owner(void *unused) {
    for (uint32_t i = 1; !ended; i++) {
        if (table_move_to_file(path) == 0) usleep(2000);
        table_lock();
        if (table_active_locked()) table_set_interval_locked(4096 + i);
        table_unlock();
        if (i % 3 == 0) {
            table_stop();
            CHECK(table_start(&OPTIONS) == 0);
        }
        usleep(500);
    }
    return unused;
}

static void *forker(void *unused) {
    while (!ended) {
        pid_t child = fork();
        if (child == 0) {
            table_lock();
            bool whole = !table_active_locked() ||
                         table_header_now()->live_samples <= HOSTS * BLOCKS;
            table_unlock();
            _exit(!whole);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        usleep(5000);
    }
    return unused;
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    path = arguments[1];
    rounds = strtol(arguments[2], NULL, 10);
    CHECK(table_start(&OPTIONS) == 0);
    pthread_t hosts[HOSTS], others[3];
    void *(*const roles[3])(void *) = {reader, owner, forker};
    for (uintptr_t i = 0; i < HOSTS; i++)
        CHECK(!pthread_create(&hosts[i], NULL, host, (void *)(i + 1)));
    for (int i = 0; i < 3; i++) CHECK(!pthread_create(&others[i], NULL, roles[i], NULL));
    for (int i = 0; i < HOSTS; i++) pthread_join(hosts[i], NULL);
    ended = true;
    for (int i = 0; i < 3; i++) pthread_join(others[i], NULL);
    table_stop();
    unlink(path);
    puts("all well");
    return 0;
}
