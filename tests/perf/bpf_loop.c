/* The floor for reading BPF objects by id: the same system calls, from C.
 *
 *     bpf_loop walk|describe TIMES
 *
 * walks over all programs, maps and links TIMES times; "describe" also opens, describes and closes each.
 * Prints: objects of the last walk, CPU nanoseconds and wall nanoseconds of all walks. */
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const struct { int next, open; } kinds[] = {
	{ BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID },
	{ BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID },
	{ BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID },
};

static int bpf(int command, union bpf_attr *attr, unsigned int size)
{
	return syscall(SYS_bpf, command, attr, size);
}

static void describe(int open_command, unsigned int id)
{
	static unsigned char info[256];
	union bpf_attr attr;
	int fd;

	memset(&attr, 0, 16);
	attr.prog_id = id;
	fd = bpf(open_command, &attr, 12);
	if (fd < 0)
		return; /* gone since it was listed */
	memset(info, 0, sizeof(info));
	memset(&attr, 0, 16);
	attr.info.bpf_fd = fd;
	attr.info.info_len = sizeof(info);
	attr.info.info = (unsigned long)info;
	bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, 16);
	close(fd);
}

static long walk(int with_description)
{
	union bpf_attr attr;
	long objects = 0;

	for (unsigned int kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
		memset(&attr, 0, 16);
		while (bpf(kinds[kind].next, &attr, 12) == 0) {
			unsigned int id = attr.next_id;

			if (with_description)
				describe(kinds[kind].open, id);
			memset(&attr, 0, 16);
			attr.start_id = id;
			objects++;
		}
		if (errno != ENOENT) {
			perror("bpf_loop");
			exit(1);
		}
	}
	return objects;
}

static long long now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	int with_description = argc > 1 && strcmp(argv[1], "describe") == 0;
	long times = argc > 2 ? atol(argv[2]) : 1;
	long objects = walk(with_description); /* warm */
	long long cpu = now(CLOCK_PROCESS_CPUTIME_ID), wall = now(CLOCK_MONOTONIC);

	for (long i = 0; i < times; i++)
		objects = walk(with_description);
	printf("%ld %lld %lld\n", objects, now(CLOCK_PROCESS_CPUTIME_ID) - cpu, now(CLOCK_MONOTONIC) - wall);
	return 0;
}
