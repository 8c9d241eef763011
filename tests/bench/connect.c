/* Connections over TCP, one after the other: connect server PORT [sent back what comes], or connect ADDRESS PORT COUNT,
   which prints the microseconds that one takes at the median, from connect(2) until a byte has come back. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int smaller(const void *one, const void *other)
{
	double difference = *(const double *)one - *(const double *)other;
	return (difference > 0) - (difference < 0);
}

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int serve(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int yes = 1, server = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 128))
		return fail("listen");
	for (;;) {
		char byte;
		int client = accept(server, NULL, NULL);
		if (client < 0)
			return fail("accept");
		if (read(client, &byte, 1) == 1 && write(client, &byte, 1) != 1)
			perror("write");
		close(client);
	}
}

int main(int count, char **words)
{
	if (count == 3 && !strcmp(words[1], "server"))
		return serve(atoi(words[2]));
	if (count != 4)
		return 2;

	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
	int tries = atoi(words[3]);
	double *took = calloc(tries, sizeof *took);

	inet_pton(AF_INET, words[1], &address.sin_addr);
	for (int i = 0; i < tries; i++) {
		char byte = 'x';
		/* The side that closes first keeps the port for a minute: an abrupt end leaves it to the next. */
		struct linger abrupt = {1, 0};
		int client = socket(AF_INET, SOCK_STREAM, 0);
		double began = now();
		if (connect(client, (struct sockaddr *)&address, sizeof address))
			return fail("connect");
		if (write(client, &byte, 1) != 1 || read(client, &byte, 1) != 1)
			return fail("no answer");
		took[i] = now() - began;
		setsockopt(client, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt);
		close(client);
	}
	qsort(took, tries, sizeof *took, smaller);
	printf("%.2f\n", took[tries / 2]);
	return 0;
}
