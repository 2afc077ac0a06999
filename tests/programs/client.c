/*
 * A program that knows nothing of perfkeep: it makes the system calls that it is told to make on
 * standard input, one a line, and prints what each gave: the value, or -errno.
 *
 *     open TYPE CONFIG CPU PID FLAGS GROUP [attr field=value ...]
 *     ioctl FD COMMAND ARGUMENT
 *     read FD                the first word of read(2)
 *     mmap FD DATA_BYTES r|w
 *     head                   data_head of the last mapping
 *     attr FIELD             a field of the attr of the last open, as it is now
 *     close FD, dup2 FD NEW, limit FILES, setuid UID, exec (this program again)
 *     in thread|fork|vfork COMMAND...
 *     send FD, receive       over a socketpair of its own
 *     open_at ADDRESS CPU, readonly CONFIG CPU  (an attr at an address, or in read-only memory)
 *     compat_open CPU, compat_ioctl FD COMMAND  (the 32-bit system calls of x86)
 *     race COUNT             reopen and ordinary open, while a thread changes the attr's type
 *     alarm COUNT            opens under a storm of signals
 *     filter FD TEXT, period FD N
 *     children, pid, env NAME
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PERSISTENT 0x706B6570u

static struct perf_event_attr attr;
static volatile uint64_t *page;
static int pair[2];

static long result(long value) { return value < 0 ? -errno : value; }

static long perf_event_open(void *at, int pid, int cpu, int group, unsigned long flags)
{
	return result(syscall(SYS_perf_event_open, at, pid, cpu, group, flags));
}

static void set(char *assignment)
{
	char *value = strchr(assignment, '=');
	uint64_t number;

	*value++ = 0;
	number = strtoull(value, NULL, 0);
	if (!strcmp(assignment, "size")) attr.size = number;
	else if (!strcmp(assignment, "config1")) attr.config1 = number;
	else if (!strcmp(assignment, "config2")) attr.config2 = number;
	else if (!strcmp(assignment, "uprobe")) attr.config1 = (uintptr_t)strdup(value);
	else if (!strcmp(assignment, "period")) attr.sample_period = number;
	else if (!strcmp(assignment, "sample_type")) attr.sample_type = number;
	else if (!strcmp(assignment, "read_format")) attr.read_format = number;
	else if (!strcmp(assignment, "flags")) memcpy((char *)&attr + 40, &number, 8);
	else abort();
}

static long open_command(char *rest)
{
	char *word[32] = {0};
	int count = 0;

	for (char *w = strtok(rest, " "); w; w = strtok(NULL, " ")) word[count++] = w;
	if (count < 6) exit(2);
	memset(&attr, 0, sizeof attr);
	attr.size = sizeof attr;
	attr.type = strtoul(word[0], NULL, 0);
	attr.config = strtoull(word[1], NULL, 0);
	for (int i = 6; i < count; i++) set(word[i]);
	return perf_event_open(&attr, atoi(word[3]), atoi(word[2]), atoi(word[5]),
			       strtoul(word[4], NULL, 0));
}

static uint64_t field(const char *name)
{
	uint64_t flags;

	memcpy(&flags, (char *)&attr + 40, 8);
	if (!strcmp(name, "type")) return attr.type;
	if (!strcmp(name, "config")) return attr.config;
	if (!strcmp(name, "period")) return attr.sample_period;
	if (!strcmp(name, "sample_type")) return attr.sample_type;
	if (!strcmp(name, "read_format")) return attr.read_format;
	if (!strcmp(name, "size")) return attr.size;
	return flags;
}

static long send_fd(int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof control};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return -errno;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	return result(sendmsg(pair[0], &message, 0));
}

static long receive_fd(void)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				 .msg_controllen = sizeof control};
	int fd;

	if (recvmsg(pair[1], &message, 0) < 0) return -errno;
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
	return fd;
}

#ifdef __x86_64__
static long compat(long number, long a, long b, long c, long d, long e)
{
	long value;

	/* gcc has no constraint for what int 0x80 takes beyond these registers. */
	__asm__ volatile("int $0x80" : "=a"(value)
			 : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)value;
}
#else
static long compat(long n, long a, long b, long c, long d, long e) { return -ENOSYS; }
#endif

static long compat_open(int cpu, uint32_t type, uint64_t config)
{
	struct perf_event_attr *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
					   MAP_PRIVATE | MAP_ANONYMOUS | 0x40 /* MAP_32BIT */, -1, 0);

	low->size = sizeof *low;
	low->type = type;
	low->config = config;
	return compat(336, (long)low, -1, cpu, -1, 0);
}

static volatile int stop;

static void *flip(void *type)
{
	while (!stop) {
		*(volatile uint32_t *)type = PERF_TYPE_SOFTWARE;
		*(volatile uint32_t *)type = PERSISTENT;
	}
	return NULL;
}

/* Gives how often the kernel's or our answer was neither an fd nor an errno that either gives. */
static long race(int count, uint64_t config)
{
	pthread_t thread;
	long strange = 0;

	memset(&attr, 0, sizeof attr);
	attr.size = sizeof attr;
	attr.config = config;
	stop = 0;
	pthread_create(&thread, NULL, flip, &attr.type);
	for (int i = 0; i < count; i++) {
		long fd = perf_event_open(&attr, -1, 0, -1, 0);

		if (fd >= 0) close(fd);
		else if (fd != -ENOENT && fd != -EINVAL) strange++;
	}
	stop = 1;
	pthread_join(thread, NULL);
	return strange;
}

static volatile long signals;
static void count_signal(int number) { signals++; }

static struct itimerval before;

static void storm_begins(int flags, int microseconds)
{
	struct itimerval often = {{0, microseconds}, {0, microseconds}};
	struct sigaction action = {.sa_handler = count_signal, .sa_flags = flags};

	memset(&attr, 0, sizeof attr);
	attr.size = sizeof attr;
	attr.type = PERF_TYPE_SOFTWARE;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, &before);
}

/* Gives how many opens failed while a signal came every 50 us, to a handler with SA_RESTART. */
static long alarm_opens(int count)
{
	long failed = 0;

	storm_begins(SA_RESTART, 50);
	for (int i = 0; i < count; i++) {
		long fd = perf_event_open(&attr, -1, 0, -1, 0);

		if (fd < 0) failed++;
		else close(fd);
	}
	setitimer(ITIMER_REAL, &before, NULL);
	return signals ? failed : -1;
}

#define AGAIN(call) ({ long got_; do got_ = (call); while (got_ == -EINTR); got_; })

/*
 * Handlers without SA_RESTART: calls that gave EINTR are made again. Gives the first other errno;
 * UNCLAIM would give EEXIST and CLAIM EINVAL if the call that gave EINTR had done anything.
 */
static long storm(int count)
{
	long fd, got = 0;

	storm_begins(0, 50);
	for (int i = 0; i < count && got >= 0; i++) {
		got = fd = AGAIN(perf_event_open(&attr, -1, 0, -1, 0));
		if (fd < 0) break;
		got = AGAIN(result(ioctl(fd, PERF_EVENT_IOC_DISABLE, 0)));
		if (got >= 0 && i % 10 == 0) got = AGAIN(result(ioctl(fd, 0x2408, 0)));
		if (got > 0) got = AGAIN(result(ioctl(fd, 0x2409, 0)));
		close(fd);
	}
	setitimer(ITIMER_REAL, &before, NULL);
	return got < 0 ? got : signals ? 0 : -1;
}

/* UNCLAIM while a signal comes every millisecond, to a handler without SA_RESTART. */
static long unclaim_in_storm(int fd)
{
	long got;

	storm_begins(0, 1000);
	got = AGAIN(result(ioctl(fd, 0x2408, 0)));
	setitimer(ITIMER_REAL, &before, NULL);
	return got;
}

static long run(char *line);

static void *run_in_thread(void *line) { return (void *)run(line); }

static long in(char *line)
{
	char *how = line, *rest = strchr(line, ' ');
	long value = -1;

	*rest++ = 0;
	if (!strcmp(how, "thread")) {
		pthread_t thread;
		void *got;

		pthread_create(&thread, NULL, run_in_thread, rest);
		pthread_join(thread, &got);
		return (long)got;
	}
	if (!strcmp(how, "vfork")) {
		volatile long got = -1;
		pid_t pid = vfork();

		if (!pid) {
			got = run(rest);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		return got;
	}
	int ends[2];

	if (pipe(ends)) return -errno;
	pid_t pid = fork();

	if (!pid) {
		value = run(rest);
		if (write(ends[1], &value, sizeof value) < 0) _exit(1);
		_exit(0);
	}
	if (read(ends[0], &value, sizeof value) < 0) value = -errno;
	waitpid(pid, NULL, 0);
	close(ends[0]);
	close(ends[1]);
	return value;
}

static long map(int fd, long bytes, char mode)
{
	void *at = mmap(NULL, bytes + 4096, mode == 'w' ? PROT_READ | PROT_WRITE : PROT_READ,
			MAP_SHARED, fd, 0);

	if (at == MAP_FAILED) return -errno;
	page = at;
	return 0;
}

static long run(char *line)
{
	char *rest = strchr(line, ' ');
	unsigned long a = 0, b = 0, c = 0;
	uint64_t words[64] = {0};
	char letter = 'r';

	if (rest) *rest++ = 0;
	else rest = line + strlen(line);
	if (!strcmp(line, "in")) return in(rest);
	if (!strcmp(line, "open")) return open_command(rest);
	if (!strcmp(line, "attr")) return field(rest);
	if (!strcmp(line, "env")) return getenv(rest) != NULL;
	if (!strcmp(line, "mmap") && sscanf(rest, "%li %li %c", &a, &b, &letter))
		return map(a, b, letter);
	if (!strcmp(line, "filter"))
		return result(ioctl(atoi(rest), PERF_EVENT_IOC_SET_FILTER, strchr(rest, ' ') + 1));
	sscanf(rest, "%li %li %li", &a, &b, &c);
	if (!strcmp(line, "ioctl")) return result(ioctl(a, b, c));
	if (!strcmp(line, "read")) return read(a, words, sizeof words) < 0 ? -errno : (long)words[0];
	if (!strcmp(line, "head")) return page[128];
	if (!strcmp(line, "close")) return result(close(a));
	if (!strcmp(line, "dup2")) return result(dup2(a, b));
	if (!strcmp(line, "setuid")) return result(setuid(a));
	if (!strcmp(line, "period")) {
		uint64_t period = b;

		return result(ioctl(a, PERF_EVENT_IOC_PERIOD, &period));
	}
	if (!strcmp(line, "send")) return send_fd(a);
	if (!strcmp(line, "receive")) return receive_fd();
	if (!strcmp(line, "pid")) return getpid();
	if (!strcmp(line, "race")) return race(a, b);
	if (!strcmp(line, "alarm")) return alarm_opens(a);
	if (!strcmp(line, "storm")) return storm(a);
	if (!strcmp(line, "unclaim_in_storm")) return unclaim_in_storm(a);
	if (!strcmp(line, "children")) return result(waitpid(-1, NULL, WNOHANG));
	if (!strcmp(line, "compat_open")) return compat_open(a, b, c);
	if (!strcmp(line, "compat_ioctl")) return compat(54, a, b, 0, 0, 0);
	if (!strcmp(line, "open_at")) return perf_event_open((void *)a, -1, b, -1, 0);
	if (!strcmp(line, "limit")) {
		struct rlimit limit = {a, a};

		return result(setrlimit(RLIMIT_NOFILE, &limit));
	}
	if (!strcmp(line, "readonly")) {
		struct perf_event_attr *copy = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
						    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		copy->size = sizeof *copy;
		copy->type = PERSISTENT;
		copy->config = a;
		mprotect(copy, 4096, PROT_READ);
		return perf_event_open(copy, -1, b, -1, 0);
	}
	if (!strcmp(line, "exec")) {
		execl("/proc/self/exe", "client", NULL);
		return -errno;
	}
	fprintf(stderr, "client: unknown command %s\n", line);
	exit(2);
}

int main(void)
{
	char line[512];

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		printf("%ld\n", run(line));
	}
	return 0;
}
