/* What counters in sysfs cost at least: each scrape reads every counter through a kept descriptor and sends the bytes, as
 * they are, behind a prefix made once. No labels of substance, no types, no errors, one connection.
 *
 *   sysfs_floor ROOT     serves HTTP on a free port of 127.0.0.1, which it prints
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536
#define ROOM (8 << 20)
#define HEAD 256

static struct { int descriptor; char *prefix; size_t length; } counters[MOST];
static int count;
static char page[ROOM];

static void add(const char *path, const char *prefix)
{
	int descriptor = open(path, O_RDONLY | O_CLOEXEC);

	if (descriptor < 0 || count == MOST)
		return;
	counters[count].descriptor = descriptor;
	counters[count].prefix = strdup(prefix);
	counters[count++].length = strlen(prefix);
}

static void each(const char *path, void (*call)(const char *path, const char *name, const char *of), const char *of)
{
	DIR *directory = opendir(path);
	struct dirent *entry;

	if (!directory)
		return;
	while ((entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			call(path, entry->d_name, of);
	closedir(directory);
}

static void counter(const char *path, const char *name, const char *device)
{
	char file[4096], prefix[1024];

	snprintf(file, sizeof file, "%s/%s", path, name);
	snprintf(prefix, sizeof prefix, "rdma_port_stat_total{device=\"%s\",port=\"1\",stat=\"%s\"} ", device, name);
	add(file, prefix);
}

static void device(const char *path, const char *name, const char *unused)
{
	static const char *directories[] = {"counters", "hw_counters"};
	char directory[4096];

	(void)unused;
	for (int i = 0; i < 2; i++) {
		snprintf(directory, sizeof directory, "%s/%s/ports/1/%s", path, name, directories[i]);
		each(directory, counter, name);
	}
}

static void zone(const char *path, const char *name, const char *unused)
{
	char file[4096], prefix[1024];

	(void)unused;
	snprintf(file, sizeof file, "%s/%s/energy_uj", path, name);
	snprintf(prefix, sizeof prefix, "rapl_energy_microjoules_total{zone=\"%s\"} ", name);
	add(file, prefix);
}

static size_t fill(void)
{
	char *at = page + HEAD;

	for (int i = 0; i < count; i++) {
		ssize_t got;

		memcpy(at, counters[i].prefix, counters[i].length);
		at += counters[i].length;
		got = pread(counters[i].descriptor, at, 32, 0);
		if (got <= 0)
			exit(1);
		at += got;
	}
	return at - page - HEAD;
}

static void serve(int connection)
{
	char request[65536], head[HEAD];

	while (recv(connection, request, sizeof request, 0) > 0) {
		size_t length = fill();
		int size = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %zu\r\n\r\n", length);

		memcpy(page + HEAD - size, head, size);
		if (send(connection, page + HEAD - size, length + size, 0) < 0)
			break;
	}
	close(connection);
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	struct rlimit limit;
	char path[4096];

	if (argc != 2)
		return 2;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	snprintf(path, sizeof path, "%s/sys/class/infiniband", argv[1]);
	each(path, device, "");
	snprintf(path, sizeof path, "%s/sys/class/powercap", argv[1]);
	each(path, zone, "");
	if (bind(listener, (void *)&address, sizeof address) || listen(listener, 8) || getsockname(listener, (void *)&address, &size))
		return 1;
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	for (;;) {
		int connection = accept(listener, NULL, NULL);

		setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		serve(connection);
	}
}
