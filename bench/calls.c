/* Times system calls: prints ns of a getppid(2), ns of an ioctl(2) that is not trapped, and p50 and
 * p99 in ns of a perf_event_open(2) for a CPU. */
#define _GNU_SOURCE
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CALLS 1000000
#define OPENS 3000

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	static int64_t took[OPENS];
	struct perf_event_attr attr;
	int64_t begin = now();

	for (int i = 0; i < CALLS; i++) syscall(SYS_getppid);
	printf("%.1f ", (double)(now() - begin) / CALLS);
	begin = now();
	for (int i = 0; i < CALLS; i++) ioctl(-1, 0x5401, 0);
	printf("%.1f ", (double)(now() - begin) / CALLS);
	memset(&attr, 0, sizeof attr);
	attr.type = PERF_TYPE_SOFTWARE;
	attr.size = sizeof attr;
	for (int i = 0; i < OPENS; i++) {
		begin = now();
		int fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
		took[i] = now() - begin;
		if (fd < 0) return 1;
		close(fd);
	}
	qsort(took, OPENS, sizeof *took, ascending);
	printf("%lld %lld\n", (long long)took[OPENS / 2], (long long)took[OPENS * 99 / 100]);
	return 0;
}
