/* A kernel's side of KGSL for a process that is started with LD_PRELOAD: open, ioctl and mmap of /dev/kgsl-3d0.
 *
 * The structures are those of the header as a C compiler lays them out, and the request numbers are made of them, so
 * that a layout that differs in the process under test is a call that nobody knows. The descriptor is one of /dev/full:
 * like the real one it is of a character device, and it survives dup. A submission is appended to the file that
 * KGSL_SHIM_LOG names: its address, its size and its words. Then the work counts as done. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <unistd.h>

struct devinfo {
    unsigned device_id, chip_id, mmu_enabled;
    unsigned long gmem_address;
    unsigned gpu_id;
    size_t gmem_bytes;
};
struct property { unsigned type; void *value; size_t bytes; };
struct wait { unsigned context, timestamp, timeout; };
struct read { unsigned context, type, timestamp; };
struct create { unsigned flags, context; };
struct destroy { unsigned context; };
struct allocate { uint64_t size, flags, va_len, mmapsize; unsigned id, metadata_len; uint64_t metadata; };
struct release { uint64_t flags, priv; unsigned id, type, len; };
struct info { uint64_t gpuaddr, flags, size, va_len, va_addr; unsigned id; };
struct object { uint64_t offset, gpuaddr, size; unsigned flags, id; };
struct command {
    uint64_t flags, cmdlist; unsigned cmdsize, numcmds;
    uint64_t objlist; unsigned objsize, numobjs;
    uint64_t synclist; unsigned syncsize, numsyncs;
    unsigned context_id, timestamp;
};

enum { OBJECTS = 64 };
#define FIRST 0x100000000ull
static struct { uint64_t size, address; int memory; } objects[OBJECTS];
static unsigned next_object = 1, timestamp, context_open;
static uint64_t next_address = FIRST;

static int ours(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 7);
}

static int opened(const char *path, int flags)
{
    if (strcmp(path, "/dev/kgsl-3d0") != 0)
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, "/dev/full", flags);
}

#define OPEN(name)                                                                  \
    int name(const char *path, int flags, ...)                                      \
    {                                                                               \
        int fd = opened(path, flags);                                               \
        if (fd >= 0)                                                                \
            return fd;                                                              \
        va_list list;                                                               \
        va_start(list, flags);                                                      \
        int mode = va_arg(list, int);                                               \
        va_end(list);                                                               \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);               \
    }
OPEN(open)
OPEN(open64)

static void log_submission(const struct object *object)
{
    FILE *log = fopen(getenv("KGSL_SHIM_LOG"), "ab");
    uint64_t head[2] = {object->gpuaddr, object->size};
    void *words = mmap(NULL, objects[object->id].size, PROT_READ, MAP_SHARED, objects[object->id].memory, 0);
    fwrite(head, sizeof head, 1, log);
    fwrite(words, object->size, 1, log);
    fclose(log);
    munmap(words, objects[object->id].size);
}

static int handle(unsigned long request, void *argument)
{
    if (request == _IOWR(0x09, 0x02, struct property)) {
        struct property *property = argument;
        struct devinfo info = {1, 0x06030001, 1, 0, 630, 1 << 20};
        if (property->type != 1)
            return ENODEV;
        if (property->bytes != sizeof info)
            return EINVAL;
        memcpy(property->value, &info, sizeof info);
    } else if (request == _IOWR(0x09, 0x13, struct create)) {
        struct create *create = argument;
        if ((create->flags & 0x12) != 0x12)
            return EINVAL;
        create->context = context_open = 5;
    } else if (request == _IOW(0x09, 0x14, struct destroy)) {
        if (((struct destroy *)argument)->context != context_open)
            return EINVAL;
        context_open = 0;
    } else if (request == _IOWR(0x09, 0x45, struct allocate)) {
        struct allocate *allocate = argument;
        if (next_object == OBJECTS || !allocate->size || allocate->size % (uint64_t)getpagesize())
            return ENOMEM;
        allocate->id = next_object++;
        allocate->mmapsize = allocate->size;
        objects[allocate->id].size = allocate->size;
        objects[allocate->id].address = next_address;
        objects[allocate->id].memory = (int)syscall(SYS_memfd_create, "object", 0);
        next_address += allocate->size;
        return ftruncate(objects[allocate->id].memory, (off_t)allocate->size) ? errno : 0;
    } else if (request == _IOWR(0x09, 0x47, struct info)) {
        struct info *info = argument;
        if (info->id >= OBJECTS || !objects[info->id].size)
            return EINVAL;
        info->gpuaddr = objects[info->id].address;
        info->size = info->va_len = objects[info->id].size;
    } else if (request == _IOW(0x09, 0x46, struct release)) {
        struct release *release = argument;
        if (release->id >= OBJECTS || !objects[release->id].size)
            return EINVAL;
        close(objects[release->id].memory);
        objects[release->id].size = 0;
    } else if (request == _IOWR(0x09, 0x4A, struct command)) {
        struct command *command = argument;
        const struct object *object = (const struct object *)(uintptr_t)command->cmdlist;
        if (command->numcmds != 1 || command->cmdsize != sizeof *object || command->context_id != context_open)
            return EINVAL;
        if (object->flags != 1 || object->id >= OBJECTS || objects[object->id].address != object->gpuaddr ||
            object->size > objects[object->id].size || object->gpuaddr < FIRST)
            return EINVAL;
        log_submission(object);
        command->timestamp = ++timestamp;
    } else if (request == _IOW(0x09, 0x07, struct wait)) {
        struct wait *wait = argument;
        if (wait->context != context_open || wait->timestamp > timestamp)
            return EINVAL;
    } else if (request == _IOWR(0x09, 0x16, struct read)) {
        struct read *read = argument;
        if (read->context != context_open || read->type != 2)
            return EINVAL;
        read->timestamp = timestamp;
    } else {
        return ENOTTY;
    }
    return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (!ours(fd))
        return (int)syscall(SYS_ioctl, fd, request, argument);
    errno = handle(request & 0xffffffffu, argument);
    return errno ? -1 : 0;
}

static void *mapped(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (!(flags & MAP_ANONYMOUS) && ours(fd)) {
        uint64_t id = (uint64_t)offset / (uint64_t)getpagesize();
        if (id >= OBJECTS || length != objects[id].size || !(flags & MAP_SHARED)) {
            errno = EINVAL;
            return MAP_FAILED;
        }
        fd = objects[id].memory;
        offset = 0;
    }
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mapped(address, length, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mapped(address, length, protection, flags, fd, offset);
}
