#ifndef BGBACKUP_CLINUX_SHIM_H
#define BGBACKUP_CLINUX_SHIM_H
/* Linux calls and constants that the Glibc module does not carry, because they
   are behind _GNU_SOURCE, have no wrapper in glibc 2.36, or are macros.
   _GNU_SOURCE itself must not be defined here: structures would then differ
   from the Glibc module's, which the compiler refuses. */
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <malloc.h>
#include <sched.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BGB_O_DIRECT 040000
#define BGB_O_NOATIME 01000000
#define BGB_O_PATH 010000000
#define BGB_O_TMPFILE 020200000
#define BGB_SEEK_DATA 3
#define BGB_SEEK_HOLE 4
#define BGB_SYNC_WAIT_WRITE_WAIT 7
#define BGB_SYNC_WRITE 2 /* start and do not wait */
#define BGB_UTIME_OMIT 1073741822L /* this time stays */

static inline int bgb_openat2(int dirfd, const char *path, int flags, unsigned mode, uint64_t resolve) {
    struct open_how how = {.flags = (uint64_t)(unsigned)flags, .mode = mode, .resolve = resolve};
    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}
/* Stay beneath the directory, follow no link of any kind, cross into nothing
   magic: what a hostile tree could use to lead a path elsewhere. */
static inline uint64_t bgb_resolve_beneath(void) {
    return RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
}
static inline int bgb_sync_file_range(int fd) {
    return (int)syscall(SYS_sync_file_range, fd, (off_t)0, (off_t)0, BGB_SYNC_WAIT_WRITE_WAIT);
}
static inline int bgb_syncfs(int fd) { return (int)syscall(SYS_syncfs, fd); }
static inline int bgb_punch_hole(int fd, off_t offset, off_t length) {
    return (int)syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}
static inline int bgb_renameat_noreplace(int olddir, const char *old, int newdir, const char *new_) {
    return (int)syscall(SYS_renameat2, olddir, old, newdir, new_, 1u /* RENAME_NOREPLACE */);
}
/* Size in bytes of a block device. */
static inline int bgb_block_device_size(int fd, uint64_t *bytes) { return ioctl(fd, BLKGETSIZE64, bytes); }
static inline int bgb_flock(int fd, int operation) { return flock(fd, operation); }
/* Two arenas instead of one for each thread, and buffers of a MiB from them
   instead of fresh pages each time: memory stays where the formula of
   docs/architecture.md puts it. */
static inline void bgb_tame_malloc(void) {
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
}
/* SCHED_IDLE (5) for the calling thread. */
static inline int bgb_sched_idle(void) {
    struct sched_param none = {0};
    return sched_setscheduler(0, 5, &none);
}
static inline int bgb_sched_normal(void) {
    struct sched_param none = {0};
    return sched_setscheduler(0, SCHED_OTHER, &none);
}
static inline int bgb_is_sched_idle(void) { return sched_getscheduler(0) == 5; }
/* Idle I/O class, best effort within it: ioprio_set(WHO_PROCESS, this thread). */
static inline int bgb_ioprio_idle(void) { return (int)syscall(SYS_ioprio_set, 1, 0, 3 << 13); }
/* What VolumeIO asks of one open file. `flags` as in sync_file_range(2). */
static inline int bgb_sync_range(int fd, off_t offset, off_t length, unsigned flags) {
    return (int)syscall(SYS_sync_file_range, fd, offset, length, flags);
}
static inline int bgb_preallocate(int fd, off_t offset, off_t length) {
    return (int)syscall(SYS_fallocate, fd, FALLOC_FL_KEEP_SIZE, offset, length);
}
/* The file offset alignment that direct I/O needs (STATX_DIOALIGN, Linux 6.1);
   0 where direct I/O falls back to the page cache, -1 where nobody knows. By
   offset, because the headers of Debian 12's glibc lack the fields. */
static inline int64_t bgb_direct_alignment(int fd) {
    uint32_t words[64] = {0};
    if (syscall(SYS_statx, fd, "", 0x1000 /* AT_EMPTY_PATH */, 0x2000 /* STATX_DIOALIGN */, words) != 0) return -1;
    return words[0] & 0x2000 ? (int64_t)words[39] : -1;
}
static inline ssize_t bgb_getdents(int fd, void *memory, size_t count) {
    return syscall(SYS_getdents64, fd, memory, count);
}
static inline ssize_t bgb_list_attributes(int fd, char *names, size_t count) { return flistxattr(fd, names, count); }
static inline ssize_t bgb_get_attribute(int fd, const char *name, void *value, size_t count) {
    return fgetxattr(fd, name, value, count);
}
static inline int bgb_set_attribute(int fd, const char *name, const void *value, size_t count) {
    return fsetxattr(fd, name, value, count, 0);
}
static inline int bgb_remove_attribute(int fd, const char *name) { return fremovexattr(fd, name); }
/* Brings a stretch of a file into the page cache and waits for it; 1 where the file ends before it does. */
static inline int bgb_populate(int fd, int64_t offset, size_t count) {
    void *map = mmap(NULL, count, PROT_READ, MAP_SHARED, fd, offset);
    if (map == MAP_FAILED) return -1;
    madvise(map, count, MADV_SEQUENTIAL); /* reads on from a touch, and not around it, where holes are */
    int result = madvise(map, count, 22 /* MADV_POPULATE_READ, Linux 5.14 */), error = errno;
    if (result != 0 && error == EINVAL) { /* older: asked for, not waited for */
        result = posix_fadvise(fd, offset, (off_t)count, POSIX_FADV_WILLNEED) == 0 ? 0 : -1;
        error = EINVAL;
    }
    munmap(map, count);
    if (result != 0 && error == EFAULT) return 1;
    errno = error;
    return result;
}
/* What capturing asks of a file system. */
static inline int bgb_clone(int to, int from) { return ioctl(to, FICLONE, from); }
static inline int bgb_freeze(int fd) { return ioctl(fd, FIFREEZE, 0); }
static inline int bgb_thaw(int fd) { return ioctl(fd, FITHAW, 0); }
/* A read-only snapshot of the subvolume that `source` is the root of, as `name` in `parent`. */
static inline int bgb_btrfs_snapshot(int parent, int source, const char *name) {
    struct btrfs_ioctl_vol_args_v2 arguments = {.fd = source, .flags = BTRFS_SUBVOL_RDONLY};
    if (strlen(name) >= sizeof arguments.name) return errno = ENAMETOOLONG, -1;
    strcpy(arguments.name, name);
    return ioctl(parent, BTRFS_IOC_SNAP_CREATE_V2, &arguments);
}
static inline int bgb_btrfs_remove(int parent, const char *name) {
    struct btrfs_ioctl_vol_args arguments = {0};
    if (strlen(name) >= sizeof arguments.name) return errno = ENAMETOOLONG, -1;
    strcpy(arguments.name, name);
    return ioctl(parent, BTRFS_IOC_SNAP_DESTROY, &arguments);
}
/* Whether the tree of roots has a subvolume `name` in the directory `parent`, before any look-up by name shows it.
   `next` is 0 at first, and then where to go on: subvolumes get ascending numbers. */
static inline int bgb_btrfs_is_rooted(int parent, const char *name, uint64_t *next) {
    struct stat status;
    struct btrfs_ioctl_ino_lookup_args within = {.objectid = BTRFS_FIRST_FREE_OBJECTID};
    if (fstat(parent, &status) != 0 || ioctl(parent, BTRFS_IOC_INO_LOOKUP, &within) != 0) return -1;
    for (;;) {
        struct btrfs_ioctl_search_args search = {.key = {
            .tree_id = BTRFS_ROOT_TREE_OBJECTID, .min_objectid = within.treeid, .max_objectid = within.treeid,
            .min_type = BTRFS_ROOT_REF_KEY, .max_type = BTRFS_ROOT_REF_KEY, .min_offset = *next, .max_offset = UINT64_MAX,
            .max_transid = UINT64_MAX, .nr_items = UINT32_MAX}};
        if (ioctl(parent, BTRFS_IOC_TREE_SEARCH, &search) != 0) return -1;
        if (search.key.nr_items == 0) return 0;
        const char *at = search.buf;
        for (uint32_t i = 0; i < search.key.nr_items; i++) {
            struct btrfs_ioctl_search_header header;
            struct btrfs_root_ref reference;
            memcpy(&header, at, sizeof header);
            at += sizeof header;
            if (header.len < sizeof reference) return errno = EINVAL, -1;
            memcpy(&reference, at, sizeof reference);
            *next = header.offset + 1;
            size_t length = le16toh(reference.name_len);
            if (le64toh(reference.dirid) == status.st_ino && length == strlen(name) &&
                sizeof reference + length <= header.len && memcmp(at + sizeof reference, name, length) == 0)
                return 1;
            at += header.len;
        }
    }
}
/* Up to `count` extents of the file on btrfs from `start` on, as its tree of files has them; returns how many, and in
   `next` where to go on, UINT64_MAX where there are no more. Unlike FIEMAP it does not look for who shares them, which
   costs some hundred times as much. Only for a file that nobody writes to: data on its way to the disk is not in the tree. */
static inline int bgb_btrfs_extents(int fd, uint64_t start, struct fiemap_extent *extents, unsigned count, uint64_t *next) {
    enum { room = 1 << 17 };
    struct stat status;
    if (fstat(fd, &status) != 0) return -1;
    struct btrfs_ioctl_search_args_v2 *search = calloc(1, sizeof *search + room);
    if (!search) return errno = ENOMEM, -1;
    search->key = (struct btrfs_ioctl_search_key){
        .min_objectid = status.st_ino, .max_objectid = status.st_ino, .min_type = BTRFS_EXTENT_DATA_KEY,
        .max_type = BTRFS_EXTENT_DATA_KEY, .min_offset = start, .max_offset = UINT64_MAX, .max_transid = UINT64_MAX,
        .nr_items = count};
    search->buf_size = room;
    int found = ioctl(fd, BTRFS_IOC_TREE_SEARCH_V2, search), error = errno;
    *next = UINT64_MAX;
    if (found == 0) {
        const char *at = (const char *)search->buf, *end = at + room;
        for (uint32_t i = 0; i < search->key.nr_items; i++) {
            struct btrfs_ioctl_search_header header;
            struct btrfs_file_extent_item item = {0};
            size_t fixed = offsetof(struct btrfs_file_extent_item, disk_bytenr);
            if ((size_t)(end - at) < sizeof header) { found = -1, error = EIO; break; }
            memcpy(&header, at, sizeof header);
            at += sizeof header;
            if (header.len < fixed || header.len > (size_t)(end - at)) { found = -1, error = EIO; break; }
            memcpy(&item, at, header.len < sizeof item ? header.len : sizeof item);
            at += header.len;
            *next = header.offset + 1;
            int isInline = item.type == BTRFS_FILE_EXTENT_INLINE;
            if (!isInline && header.len < sizeof item) { found = -1, error = EIO; break; }
            if (!isInline && item.disk_bytenr == 0) continue; /* a hole */
            extents[found++] = (struct fiemap_extent){
                .fe_logical = header.offset,
                .fe_physical = isInline ? 0 : le64toh(item.disk_bytenr) + le64toh(item.offset),
                .fe_length = isInline ? le64toh(item.ram_bytes) : le64toh(item.num_bytes),
                .fe_flags = (isInline ? FIEMAP_EXTENT_DATA_INLINE : 0)
                    | (item.compression || item.encryption || item.other_encoding ? FIEMAP_EXTENT_ENCODED : 0)
                    | (item.type == BTRFS_FILE_EXTENT_PREALLOC ? FIEMAP_EXTENT_UNWRITTEN : 0)
                    | (item.type > BTRFS_FILE_EXTENT_PREALLOC ? FIEMAP_EXTENT_UNKNOWN : 0)};
        }
    }
    free(search);
    errno = error;
    return found;
}
/* Up to `count` extents of the file from `start` on; returns how many. */
static inline int bgb_fiemap(int fd, uint64_t start, struct fiemap_extent *extents, unsigned count) {
    size_t size = sizeof(struct fiemap) + count * sizeof *extents;
    struct fiemap *map = calloc(1, size);
    if (!map) return errno = ENOMEM, -1;
    map->fm_start = start;
    map->fm_length = FIEMAP_MAX_OFFSET - start;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = count;
    int result = ioctl(fd, FS_IOC_FIEMAP, map);
    if (result == 0) {
        result = (int)map->fm_mapped_extents;
        memcpy(extents, map->fm_extents, (size_t)result * sizeof *extents);
    }
    int error = errno;
    free(map);
    errno = error;
    return result;
}
/* Which file a loop device has beneath it, and whether it may write there. */
static inline int bgb_loop_backing(int fd, uint64_t *device, uint64_t *inode, int *is_read_only) {
    struct loop_info64 info = {0};
    if (ioctl(fd, LOOP_GET_STATUS64, &info) != 0) return -1;
    *device = info.lo_device;
    *inode = info.lo_inode;
    *is_read_only = (info.lo_flags & LO_FLAGS_READ_ONLY) != 0;
    return 0;
}
/* Tracing, of which only stopping and letting go is used. The raw call takes
   `data` by value for these requests. */
#define BGB_PTRACE_SEIZE 0x4206
#define BGB_PTRACE_INTERRUPT 0x4207
#define BGB_PTRACE_DETACH 17
static inline long bgb_ptrace(long request, pid_t thread, long data) {
    return syscall(SYS_ptrace, request, thread, 0L, data);
}
static inline pid_t bgb_wait_thread(pid_t thread, int *status) {
    return waitpid(thread, status, WNOHANG | 0x40000000 /* __WALL */);
}
static inline void bgb_close_from(int first) { syscall(SYS_close_range, (unsigned)first, ~0u, 0u); }
static inline unsigned bgb_device_major(uint64_t device) { return major(device); }
static inline unsigned bgb_device_minor(uint64_t device) { return minor(device); }
/* Gives the calling thread a network of its own, with nothing in it but its loopback: sockets that it makes, and
   programs that it starts, reach nothing else. The rest of the process keeps its network. */
static inline int bgb_isolate_network(void) {
    if (syscall(SYS_unshare, 0x40000000 /* CLONE_NEWNET */) != 0) return -1;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct ifreq request = {.ifr_name = "lo"};
    int result = ioctl(fd, SIOCGIFFLAGS, &request);
    if (result == 0) {
        request.ifr_flags |= IFF_UP;
        result = ioctl(fd, SIOCSIFFLAGS, &request);
    }
    int error = errno;
    close(fd);
    errno = error;
    return result;
}
/* Behind _GNU_SOURCE: where a started program runs, and that it inherits no open file. */
extern int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t *, const char *);
extern int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *, int);
static inline int bgb_spawn_in(posix_spawn_file_actions_t *actions, const char *directory) {
    int result = posix_spawn_file_actions_addchdir_np(actions, directory);
    return result ? result : posix_spawn_file_actions_addclosefrom_np(actions, 3);
}
/* Neither a core file nor a core for the kernel's handler. */
static inline void bgb_no_core(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
#endif
