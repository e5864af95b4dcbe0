// SPDX-License-Identifier: Apache-2.0
/* One request, one answer on rollsite's socket. */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/json.h"

#include "transfer/transfer_priv.h"

#define GOOD "\"status\":0}"

int link_open(struct link *l, const char *socket_path, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = -1, dir = -1;
	const char *slash = strrchr(socket_path, '/');

	*l = (struct link){ .fd = -1 };
	sb_init(&l->head, FRAME_HEAD_MAX);
	sb_init(&l->body, FRAME_BODY_MAX);
	/* State directories may be deeper than sun_path is long. */
	if (strlen(socket_path) < sizeof(a.sun_path)) {
		(void)snprintf(a.sun_path, sizeof(a.sun_path), "%s",
			       socket_path);
	} else {
		_cleanup_free_ char *d =
		    xasprintf("%.*s", (int)(slash - socket_path), socket_path);

		dir = open(d, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0)
			return err_sys(e, errno, "%s", socket_path);
		(void)snprintf(a.sun_path, sizeof(a.sun_path),
			       "/proc/self/fd/%d/%.60s", dir, slash + 1);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(e, errno, "socket");
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return err_sys(e, errno, "%s", socket_path);
	l->fd = TAKE_FD(fd);
	return 0;
}

void link_close(struct link *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	sb_free(&l->head);
	sb_free(&l->body);
}

int link_ask(struct link *l, const char *head, const void *body, size_t n,
	     int pass_fd, int *ret_fd, struct err *e)
{
	_cleanup_close_ int fd = -1;
	json_t *o;
	int r;

	r = frame_send(l->fd, head, strlen(head), body, n, pass_fd);
	if (!r)
		r = frame_answer(l->fd, &l->head, &l->body, &fd);
	if (r) {
		err_set(e, EPIPE, "rollsite has gone");
		return -EPIPE;
	}
	if (ret_fd)
		*ret_fd = TAKE_FD(fd);
	/* Most of them; "status" is the last of sorted names. */
	if (l->head.len >= sizeof(GOOD) - 1 &&
	    !strcmp(l->head.buf + l->head.len - (sizeof(GOOD) - 1), GOOD))
		return 0;
	o = json_parse(l->head.buf, l->head.len, e);
	if (!o)
		return err_wrap(e, "rollsite's answer");
	r = (int)json_int_or(o, "status", -EPROTO);
	if (r)
		err_set(e, -r, "%s", json_str_or(o, "error", "failed"));
	json_decref(o);
	if (r && ret_fd && *ret_fd >= 0) {
		close(*ret_fd);
		*ret_fd = -1;
	}
	return r;
}

int link_request(struct link *l, const json_t *head, const void *body, size_t n,
		 int pass_fd, json_t **ret, int *ret_fd, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	int r;

	/* A head that could not be made holds what JSON cannot. */
	if (!head)
		return err_set(e, EINVAL, "not UTF-8 text");
	text = json_text(head, false);
	r = link_ask(l, text, body, n, pass_fd, ret_fd, e);
	if (r == -EPIPE || !ret)
		return r;
	*ret = json_parse(l->head.buf, l->head.len, NULL);
	return *ret ? r : err_set(e, EPROTO, "rollsite's answer is malformed");
}
