/* Preloaded into a test's process: lets writes or syncs of the spool's files fail as a dying disk makes them fail.
   The file named by FAULT_FILE holds the calls that fail and the errno, like "fsync 5"; empty or missing, all is well.
   Each fault adds a byte to the file FAULT_FILE.hits, so that the test knows it happened. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int of_the_spool(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "spool.sqlite3") != NULL;
}

static int fault(const char *call, int fd) {
    char wanted[64] = "", name[32] = "", hits[4096];
    int number = 0;
    const char *path = getenv("FAULT_FILE");
    if (!path || !of_the_spool(fd)) return 0;
    int control = open(path, O_RDONLY);
    if (control < 0) return 0;
    ssize_t length = read(control, wanted, sizeof wanted - 1);
    close(control);
    if (length <= 0 || sscanf(wanted, "%31s %d", name, &number) != 2 || strcmp(name, call)) return 0;
    snprintf(hits, sizeof hits, "%s.hits", path);
    int log = open(hits, O_WRONLY | O_CREAT | O_APPEND, 0600);
    ssize_t (*really)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (log >= 0) {
        if (really(log, "!", 1) != 1) abort();
        close(log);
    }
    return number;
}

#define FAIL_IF(call, fd) do { int number = fault(call, fd); if (number) { errno = number; return -1; } } while (0)

ssize_t write(int fd, const void *data, size_t n) {
    static ssize_t (*really)(int, const void *, size_t);
    if (!really) really = dlsym(RTLD_NEXT, "write");
    FAIL_IF("write", fd);
    return really(fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    static ssize_t (*really)(int, const void *, size_t, off_t);
    if (!really) really = dlsym(RTLD_NEXT, "pwrite");
    FAIL_IF("write", fd);
    return really(fd, data, n, at);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    static ssize_t (*really)(int, const void *, size_t, off64_t);
    if (!really) really = dlsym(RTLD_NEXT, "pwrite64");
    FAIL_IF("write", fd);
    return really(fd, data, n, at);
}

int fsync(int fd) {
    static int (*really)(int);
    if (!really) really = dlsym(RTLD_NEXT, "fsync");
    FAIL_IF("fsync", fd);
    return really(fd);
}

int fdatasync(int fd) {
    static int (*really)(int);
    if (!really) really = dlsym(RTLD_NEXT, "fdatasync");
    FAIL_IF("fsync", fd);
    return really(fd);
}
