/*
 * Execute a program with an environment that a shell would not pass on: an entry without a "=", one
 * without a name, a name twice, bytes that are not UTF-8.
 *
 *     execute PROGRAM [ARG ...]       its own PERFKEEP_SOCKET is passed on
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static char entry[512];
	char *environment[] = {"A=1", "NOEQUALS", "A=2", "=odd", "PATH=/usr/bin:/bin", "U=\xff\xfe",
			       entry, "EMPTY=", NULL};

	snprintf(entry, sizeof entry, "PERFKEEP_SOCKET=%s", getenv("PERFKEEP_SOCKET"));
	execve(argv[1], argv + 1, environment);
	perror("execve");
	return 9;
}
