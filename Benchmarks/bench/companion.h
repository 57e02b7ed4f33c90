/* What the programs that run beside a backup have in common: a clock, random numbers, and a driver
   that sends a line whenever it wants the figures since the line before. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096 };

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Nanoseconds of CLOCK_MONOTONIC. */
static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void sleep_until(int64_t when) {
    struct timespec time = {when / 1000000000LL, when % 1000000000LL};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

/* Whether the driver has sent a line. The program ends with its driver. */
static int is_asked(void) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&input, 1, 0) <= 0) return 0;
    char line[64];
    if (read(STDIN_FILENO, line, sizeof line) <= 0) exit(0);
    return 1;
}

static uint64_t state = 1;

static uint64_t random_number(void) {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717ULL;
}

/* Below `end`, which is far below 2^64. */
static uint64_t random_below(uint64_t end) { return random_number() % end; }
