/*
 * Random perf_event_open(2)s and ioctl(2)s, from several threads and their children: good attrs with
 * a few wrong bits, wild pointers, attrs that change meanwhile, fds that are closed meanwhile.
 *
 *     fuzz SEED SECONDS        prints how many calls it made, and ends with 0
 *
 * Only events that count: CPU clocks, dummies and what is made of them. It knows nothing of what
 * should be answered; whoever starts it looks at what is left of the rest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PERSISTENT 0x706B6570u
#define THREADS 4
#define FDS 64

static struct perf_event_attr shared;
static _Atomic int fds[FDS];
static _Atomic long calls;
static time_t end;

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t pick(uint64_t *state, const uint64_t *from, int count)
{
	return from[next(state) % count];
}

#define PICK(...) pick(state, (const uint64_t[]){__VA_ARGS__}, \
		       sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void make_attr(uint64_t *state, struct perf_event_attr *attr)
{
	uint64_t flags = PICK(0, 0, 1, 1ull << 41, 1ull << 41, 1ull << 27, 1ull << 18, next(state));

	memset(attr, 0, sizeof *attr);
	attr->type = PICK(1, 1, 1, PERSISTENT, PERSISTENT, 0, 2, 5, next(state) % 16, next(state));
	attr->size = PICK(sizeof *attr, sizeof *attr, 64, 0, 136, 63, 4096, 4097, next(state));
	attr->config = PICK(0, 9, 1, 2, 3, next(state) % 64, next(state));
	attr->config1 = PICK(0, 0, 1, next(state));
	attr->config2 = PICK(0, 0, 0, next(state));
	attr->sample_period = PICK(0, 0, 1000000, next(state));
	attr->sample_type = PICK(0, 7, 0x101a7, next(state));
	attr->read_format = PICK(0, 3, 7, 23, next(state));
	memcpy((char *)attr + 40, &flags, 8);
}

static void one_open(uint64_t *state, char *page)
{
	struct perf_event_attr attr;
	void *at = &attr;
	long fd;

	make_attr(state, &attr);
	switch (next(state) % 12) {
	case 0: at = (void *)next(state); break;
	case 1: at = NULL; break;
	case 2: memcpy(&shared, &attr, sizeof attr); at = &shared; break;
	case 3: at = page + 4096 - next(state) % 200; break; /* what follows is not mapped */
	case 4: at = (void *)0xffffffffff600000ull; break;
	}
	fd = syscall(SYS_perf_event_open, at, (int)PICK(-1, -1, -1, 0, next(state)),
		     (int)PICK(0, 0, 1, -1, next(state) % 8, next(state)),
		     (int)PICK(-1, -1, -1, fds[next(state) % FDS], next(state) % 70),
		     PICK(0, 8, 8, 1, 2, 4, next(state)));
	calls++;
	if (fd >= 0) {
		int old = atomic_exchange(&fds[next(state) % FDS], fd);

		if (old > 2) close(old);
	}
}

static void one_ioctl(uint64_t *state)
{
	int fd = PICK(fds[next(state) % FDS], fds[next(state) % FDS], next(state) % 80, next(state));

	ioctl(fd, PICK(0x2408, 0x2408, 0x2409, 0x2400, 0x2401, 0x2403, 0x2405, 0x40042409,
		       0x2402, 0x80082407, 0x2400 | next(state) % 32, 0x2408 | next(state) << 32),
	      PICK(0, 0, 1, -1, fds[next(state) % FDS], next(state) % 80, (uintptr_t)&shared,
		   next(state)));
	calls++;
}

static void *work(void *seed)
{
	uint64_t own = (uintptr_t)seed, *state = &own;
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(page + 4096, 4096);
	while (time(NULL) < end) {
		switch (next(state) % 40) {
		case 0: {
			int old = atomic_exchange(&fds[next(state) % FDS], -1);

			if (old > 2) close(old);
			break;
		}
		case 1: {
			size_t size = PICK(129, 129, 9, 1, 2) * 4096;
			void *at = mmap(NULL, size, PROT_READ, MAP_SHARED,
					fds[next(state) % FDS], 0);

			if (at != MAP_FAILED && next(state) % 4) munmap(at, size);
			break;
		}
		case 2: {
			pid_t pid = fork();

			if (!pid) {
				for (int i = 0; i < 20; i++) one_open(state, page), one_ioctl(state);
				if (next(state) % 2) raise(SIGKILL);
				_exit(0);
			}
			if (pid > 0) waitpid(pid, NULL, 0);
			break;
		}
		case 3: memset(&shared, (int)next(state), sizeof shared); break;
		case 4: shared.type = PERSISTENT; break;
		default:
			if (next(state) % 2) one_open(state, page);
			else one_ioctl(state);
		}
	}
	munmap(page, 4096);
	return NULL;
}

int main(int count, char **words)
{
	pthread_t threads[THREADS];
	uint64_t seed = count > 1 ? strtoull(words[1], NULL, 0) : 1;

	end = time(NULL) + (count > 2 ? atoi(words[2]) : 5);
	for (int i = 0; i < FDS; i++) fds[i] = -1;
	signal(SIGIO, SIG_IGN);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(seed * 2654435761u + i + 1));
	for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
	printf("%ld\n", (long)calls);
	return 0;
}
