/* Lets a number of writes below a folder succeed; later ones fail as on a full disk.

   LD_PRELOAD loads it into a process and its children. FULL_DISK_FOLDER names the folder, and
   FULL_DISK_LEFT a file with a long: the number of writes that are left. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *folder;
static long *left;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FULL_DISK_LEFT");
    folder = getenv("FULL_DISK_FOLDER");
    int file = path ? open(path, O_RDWR) : -1;
    if (folder == NULL || file < 0) return;
    void *shared = mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED) left = shared;
    close(file);
}

/* Counts a write below the folder; returns whether the disk is full. */
static int is_full(int file) {
    char link[64], path[4096];
    if (left == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path);
    size_t prefix = strlen(folder);
    if (length < (ssize_t)prefix || strncmp(path, folder, prefix) != 0) return 0;
    if (__atomic_sub_fetch(left, 1, __ATOMIC_SEQ_CST) >= 0) return 0;
    errno = ENOSPC;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t count) {
    return is_full(file) ? -1 : REAL(write)(file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return is_full(file) ? -1 : REAL(writev)(file, parts, count);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    return is_full(file) ? -1 : REAL(pwrite)(file, bytes, count, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    return is_full(file) ? -1 : REAL(pwrite64)(file, bytes, count, offset);
}
