// SPDX-License-Identifier: Apache-2.0
/* Where others connect to us. */
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "transfer/transfer_priv.h"

int listen_bind(const struct conf *c, int *ret, struct err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_PASSIVE },
			*ai = NULL;
	_cleanup_close_ int fd = -1;
	char port[8];
	int g, one = 1, r = 0;

	(void)snprintf(port, sizeof(port), "%u", c->listen_port);
	g = getaddrinfo(c->listen_host, port, &hints, &ai);
	if (g)
		return err_set(e, EADDRNOTAVAIL, "%s: %s", c->listen_host,
			       gai_strerror(g));
	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
		    0);
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    (ai->ai_family == AF_INET6 &&
	     setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))) ||
	    bind(fd, ai->ai_addr, ai->ai_addrlen))
		r = err_sys(e, errno, "%s:%s", c->listen_host, port);
	freeaddrinfo(ai);
	if (!r)
		*ret = TAKE_FD(fd);
	return r;
}
