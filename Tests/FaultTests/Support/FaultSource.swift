/// Source of the library that `Faults` preloads.
let faultSource = #"""
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <signal.h>
    #include <stdarg.h>
    #include <stdatomic.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    enum { DIE = -1 };
    struct rule { char kinds[128]; long from; int code; char path[256]; atomic_long met; };

    static long (*real)(long, ...);
    static const char *root, *pause_file;
    static int log_fd = -1, tear;
    static long kill_at;
    static struct rule fail, hold;
    static atomic_long changes;

    static void parse(const char *text, struct rule *rule) {
        if (text) sscanf(text, "%127[^,],%ld,%d,%255[^\n]", rule->kinds, &rule->from, &rule->code, rule->path);
    }

    __attribute__((constructor)) static void begin(void) {
        if (real) return;
        root = getenv("FAULT_ROOT");
        pause_file = getenv("FAULT_PAUSE_FILE");
        if (getenv("FAULT_KILL")) kill_at = atol(getenv("FAULT_KILL"));
        if (getenv("FAULT_TEAR")) tear = atoi(getenv("FAULT_TEAR"));
        parse(getenv("FAULT_FAIL"), &fail);
        parse(getenv("FAULT_PAUSE"), &hold);
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
        const char *log = getenv("FAULT_LOG");
        if (log) {
            int fd = (int)real(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
            log_fd = (int)real(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 500);
            real(SYS_close, fd);
        }
    }

    /* The absolute path behind a descriptor, or behind a name relative to one. */
    static const char *where(int dir, const char *name, char out[4096]) {
        char link[64];
        out[0] = 0;
        if (name && name[0] == '/') {
            if (strncmp(name, "/proc/self/fd/", 14) != 0) { snprintf(out, 4096, "%s", name); return out; }
            snprintf(link, sizeof link, "%s", name);
            name = NULL;
        } else if (dir == AT_FDCWD) {
            snprintf(link, sizeof link, "/proc/self/cwd");
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        }
        long got = real(SYS_readlinkat, AT_FDCWD, link, out, 4000L);
        if (got < 0) got = 0;
        out[got] = 0;
        if (name && name[0]) snprintf(out + got, 4096 - (size_t)got, "/%s", name);
        return out;
    }

    /* Whether one of the parts that "|" joins is `text`, or a part of it. */
    static int matches(const char *list, const char *text, int whole) {
        char copy[256], *rest = copy, *part;
        snprintf(copy, sizeof copy, "%s", list);
        while ((part = strsep(&rest, "|")))
            if (whole ? strcmp(part, text) == 0 : strstr(text, part) != NULL) return 1;
        return 0;
    }

    /* 0, an errno to fail with, or DIE. */
    static int meet(const char *kind, int changes_something, const char *path) {
        if (!root || strncmp(path, root, strlen(root)) != 0) return 0;
        if (hold.from && matches(hold.kinds, kind, 1) && matches(hold.path, path, 0)
            && atomic_fetch_add(&hold.met, 1) + 1 == hold.from) {
            real(SYS_close, real(SYS_openat, AT_FDCWD, pause_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
            for (int i = 0; i < 12000; i++) {
                if (real(SYS_faccessat, AT_FDCWD, pause_file, F_OK) != 0) break;
                struct timespec step = {0, 5000000};
                real(SYS_nanosleep, &step, NULL);
            }
        }
        if (fail.from && matches(fail.kinds, kind, 1) && matches(fail.path, path, 0)
            && atomic_fetch_add(&fail.met, 1) + 1 >= fail.from)
            return fail.code;
        if (!changes_something) return 0;
        long number = atomic_fetch_add(&changes, 1) + 1;
        if (log_fd >= 0) {
            char line[4200];
            int length = snprintf(line, sizeof line, "%ld %s %s\n", number, kind, path);
            real(SYS_write, log_fd, line, (long)length);
        }
        return number == kill_at ? DIE : 0;
    }

    static _Noreturn void die(void) {
        real(SYS_kill, (long)getpid(), (long)SIGKILL);
        for (;;) real(SYS_pause);
    }

    #define MEET(kind, changing, dir, name) \
        do { begin(); char path_[4096]; int code_ = meet(kind, changing, where(dir, name, path_)); \
             if (code_ == DIE) die(); \
             if (code_) { errno = code_; return -1; } } while (0)

    static int missing(int dir, const char *name) { return real(SYS_faccessat, (long)dir, name, (long)F_OK) != 0; }

    static int meet_open(int dir, const char *name, int flags) {
        char path[4096];
        int making = (flags & O_CREAT) && (missing(dir, name) || (flags & O_TRUNC));
        int code = meet(making ? "create" : "open", making, where(dir, name, path));
        if (code == DIE) die();
        return code;
    }

    static int open_it(int dir, const char *name, int flags, mode_t mode) {
        begin();
        int code = meet_open(dir, name, flags);
        if (code) { errno = code; return -1; }
        return (int)real(SYS_openat, (long)dir, name, (long)flags, (long)mode);
    }
    #define MODE mode_t mode = 0; va_list list; va_start(list, flags); if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(list, mode_t); va_end(list)
    int open(const char *name, int flags, ...) { MODE; return open_it(AT_FDCWD, name, flags, mode); }
    int open64(const char *name, int flags, ...) { MODE; return open_it(AT_FDCWD, name, flags, mode); }
    int openat(int dir, const char *name, int flags, ...) { MODE; return open_it(dir, name, flags, mode); }
    int openat64(int dir, const char *name, int flags, ...) { MODE; return open_it(dir, name, flags, mode); }

    static long write_it(long number, int fd, const void *bytes, size_t count, off_t offset) {
        begin();
        if (fd > 2 && fd != log_fd) {
            char path[4096];
            int code = meet("write", 1, where(fd, NULL, path));
            if (code == DIE) {
                size_t half = count >= 8192 ? count / 2 / 4096 * 4096 : count / 2;
                if (tear && half) real(number, (long)fd, bytes, (long)half, (long)offset);
                die();
            }
            if (code) { errno = code; return -1; }
        }
        return real(number, (long)fd, bytes, (long)count, (long)offset);
    }
    ssize_t write(int fd, const void *bytes, size_t count) { return write_it(SYS_write, fd, bytes, count, 0); }
    ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) { return write_it(SYS_pwrite64, fd, bytes, count, offset); }
    ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) { return write_it(SYS_pwrite64, fd, bytes, count, offset); }

    ssize_t read(int fd, void *bytes, size_t count) { MEET("read", 0, fd, NULL); return real(SYS_read, (long)fd, bytes, (long)count); }
    ssize_t pread(int fd, void *bytes, size_t count, off_t offset) { MEET("read", 0, fd, NULL); return real(SYS_pread64, (long)fd, bytes, (long)count, (long)offset); }
    ssize_t pread64(int fd, void *bytes, size_t count, off_t offset) { return pread(fd, bytes, count, offset); }

    int fsync(int fd) { MEET("fsync", 1, fd, NULL); return (int)real(SYS_fsync, (long)fd); }
    int fdatasync(int fd) { MEET("fdatasync", 1, fd, NULL); return (int)real(SYS_fdatasync, (long)fd); }
    int ftruncate(int fd, off_t size) { MEET("truncate", 1, fd, NULL); return (int)real(SYS_ftruncate, (long)fd, (long)size); }
    int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }
    int fchmod(int fd, mode_t mode) { MEET("fchmod", 1, fd, NULL); return (int)real(SYS_fchmod, (long)fd, (long)mode); }
    int fchown(int fd, uid_t user, gid_t group) { MEET("fchown", 1, fd, NULL); return (int)real(SYS_fchown, (long)fd, (long)user, (long)group); }
    int fchownat(int dir, const char *name, uid_t user, gid_t group, int flags) { MEET("fchown", 1, dir, name); return (int)real(SYS_fchownat, (long)dir, name, (long)user, (long)group, (long)flags); }
    int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags) { MEET("setxattr", 1, fd, NULL); return (int)real(SYS_fsetxattr, (long)fd, name, value, (long)size, (long)flags); }
    int futimens(int fd, const struct timespec times[2]) { MEET("utimens", 1, fd, NULL); return (int)real(SYS_utimensat, (long)fd, NULL, times, 0L); }
    int utimensat(int dir, const char *name, const struct timespec times[2], int flags) { MEET("utimens", 1, dir, name); return (int)real(SYS_utimensat, (long)dir, name, times, (long)flags); }
    int rename(const char *from, const char *to) { MEET("rename", 1, AT_FDCWD, to); return (int)real(SYS_renameat2, (long)AT_FDCWD, from, (long)AT_FDCWD, to, 0L); }
    int renameat(int from_dir, const char *from, int to_dir, const char *to) { MEET("rename", 1, to_dir, to); return (int)real(SYS_renameat2, (long)from_dir, from, (long)to_dir, to, 0L); }
    int link(const char *from, const char *to) { MEET("link", 1, AT_FDCWD, to); return (int)real(SYS_linkat, (long)AT_FDCWD, from, (long)AT_FDCWD, to, 0L); }
    int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) { MEET("link", 1, to_dir, to); return (int)real(SYS_linkat, (long)from_dir, from, (long)to_dir, to, (long)flags); }
    int symlinkat(const char *target, int dir, const char *name) { MEET("symlink", 1, dir, name); return (int)real(SYS_symlinkat, target, (long)dir, name); }
    int unlink(const char *name) { MEET("unlink", 1, AT_FDCWD, name); return (int)real(SYS_unlinkat, (long)AT_FDCWD, name, 0L); }
    int unlinkat(int dir, const char *name, int flags) { MEET("unlink", 1, dir, name); return (int)real(SYS_unlinkat, (long)dir, name, (long)flags); }
    int mkdirat(int dir, const char *name, mode_t mode) {
        begin();
        if (missing(dir, name)) MEET("mkdir", 1, dir, name);
        return (int)real(SYS_mkdirat, (long)dir, name, (long)mode);
    }
    int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

    long syscall(long number, ...) {
        long a[6];
        va_list list;
        va_start(list, number);
        for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
        va_end(list);
        begin();
        switch (number) {
        case SYS_openat2: {
            int code = meet_open((int)a[0], (const char *)a[1], (int)*(uint64_t *)a[2]);
            if (code) { errno = code; return -1; }
            break;
        }
        case SYS_renameat2: MEET("rename", 1, (int)a[2], (const char *)a[3]); break;
        case SYS_syncfs: MEET("syncfs", 1, (int)a[0], NULL); break;
        case SYS_fallocate: MEET("fallocate", 1, (int)a[0], NULL); break;
        case SYS_getdents64: MEET("list", 0, (int)a[0], NULL); break;
        case SYS_sync_file_range: MEET("clean", 0, (int)a[0], NULL); break;
        }
        return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    """#
