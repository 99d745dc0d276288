/* A socket that somebody else has made, passed over a unix socket: whether it works here. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/vm_sockets.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "report.h"

static int fail(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	return 3;
}

/* The descriptor that comes with one byte; -1 if none does. */
static int receive_descriptor(int connection)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char byte;
	struct iovec data = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
	int descriptor = -1;
	if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC) < 0)
		return -1;
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
	return descriptor;
}

/* `name` is in the abstract namespace, which the pods of a host's network share. */
int probe_receive(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
	socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1));
	int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection < 0 || connect(connection, (struct sockaddr *)&address, length) < 0)
		return fail("connect");
	int passed = receive_descriptor(connection);
	if (passed < 0)
		return fail("no descriptor was passed");

	int domain;
	socklen_t size = sizeof domain;
	if (getsockopt(passed, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0)
		return fail("getsockopt");
	struct sockaddr_vm any = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = VMADDR_PORT_ANY};
	struct outcome bound = {.value = bind(passed, (struct sockaddr *)&any, sizeof any) < 0 ? -errno : 0};
	printf("{\"domain\": %d, \"bind\": \"%s\"}\n", domain, outcome_name(bound));
	return 0;
}
