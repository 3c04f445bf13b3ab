/* The least that serving energy counters can cost: files kept open, read with pread(2) at each request, one connection.
 *
 *   rapl_floor FILE...      prints its port, then answers requests on one keep-alive connection at a time:
 *                           /metrics with the counters, anything else with OK
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 64, PAGE = 16384 };

static int page(char *out, int files, const int *fds)
{
	int length = sprintf(out, "# TYPE rapl_zone_energy_joules_total counter\n");

	for (int each = 0; each < files; each++) {
		char value[32];
		ssize_t got = pread(fds[each], value, sizeof(value) - 1, 0);

		if (got <= 0)
			continue;
		value[got] = 0;
		length += sprintf(out + length, "rapl_zone_energy_joules_total{zone=\"%d\"} %.6f\n", each,
				  strtoull(value, NULL, 10) / 1e6);
	}
	return length;
}

static void serve(int connection, int files, const int *fds)
{
	static char request[4096], body[PAGE], answer[PAGE + 256];
	size_t have = 0;

	for (;;) {
		ssize_t got = read(connection, request + have, sizeof(request) - 1 - have);

		if (got <= 0 || have + got >= sizeof(request) - 1)
			return;
		have += got;
		request[have] = 0;
		if (!strstr(request, "\r\n\r\n"))
			continue;
		have = 0;
		int length = strncmp(request, "GET /metrics ", 13) ? sprintf(body, "OK\n") : page(body, files, fds);
		int total = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %d\r\n\r\n",
				    length);

		memcpy(answer + total, body, length);
		if (write(connection, answer, total + length) != total + length)
			return;
	}
}

int main(int count, char **arguments)
{
	int fds[MOST], files = 0;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	for (int each = 1; each < count && files < MOST; each++)
		if ((fds[files++] = open(arguments[each], O_RDONLY)) < 0)
			return perror(arguments[each]), 1;
	if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&address, &size))
		return perror("listen"), 1;
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	for (;;) {
		int connection = accept(listener, NULL, NULL);

		if (connection < 0)
			return 1;
		serve(connection, files, fds);
		close(connection);
	}
}
