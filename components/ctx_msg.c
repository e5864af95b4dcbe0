// SPDX-License-Identifier: Apache-2.0
// Messages of a task: typed values (wire.h) through rollsite's channel.
#include "components/ctx_priv.h"
#include "components/wire.h"
#include "lib/json.h"

#define JSON_MAX   (16u << 20)
#define PACKED_MAX (256u << 10) /* more is not packed in memory */

int ctx_peer(struct ctx *c, const char *role, size_t i,
	     struct channel_peer *ret, struct err *e)
{
	if (i >= ctx_count(c, role))
		return err_set(e, EINVAL, "there is no %s %zu", role, i);
	ret->role = role;
	ret->party = ctx_member(c, role, i);
	return 0;
}

int ctx_msg_failed(struct ctx *c, int r, const char *name, struct err *e)
{
	if (r == -EBADMSG)
		ctx_fail_code(c, "damaged_message",
			      "a message arrived damaged");
	else if (r == -EPROTO || r == -EMSGSIZE)
		ctx_fail_code(c, "bad_message",
			      "a partner sent something unexpected");
	else if (r == -EACCES || r == -EEXIST)
		ctx_fail_code(c, "refused_message",
			      "a partner refused a message, or has ended the "
			      "job");
	else if (r != -ENOMEM && r != -EINVAL)
		ctx_fail_code(c, "lost_contact", "lost contact with a partner");
	return err_wrap(e, "message %s", name);
}

// Without a second copy of all of it: the items go as they stand, and those
// that have to be converted in pieces.
static int stream_typed(struct channel_stream *s, enum wire_type type,
			const char *data, size_t width, size_t n, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PACKED_MAX + WIRE_HEAD);
	int r = wire_head(&sb, type, width, n);

	if (!r)
		r = channel_stream_write(s, sb.buf, sb.len, e);
	else
		err_set(e, -r, "it cannot be packed");
	if (type != WIRE_F64 && type != WIRE_U32)
		return r ? r : channel_stream_write(s, data, width * n, e);
	for (size_t at = 0; !r && at < n;) {
		size_t part = MIN(n - at, PACKED_MAX / width);

		sb_reset(&sb);
		r = wire_items(&sb, type, data + at * width, width, part);
		if (!r)
			r = channel_stream_write(s, sb.buf, sb.len, e);
		else
			err_set(e, -r, "it cannot be packed");
		at += part;
	}
	return r;
}

static int send_large(struct ctx *c, struct channel_peer to, const char *name,
		      const char *tag, enum wire_type type, const void *data,
		      size_t width, size_t n, struct err *e)
{
	struct channel_stream *s = NULL;
	int r = channel_stream_open(c->channel, to, name, tag, &s, e);

	if (r)
		return r;
	r = stream_typed(s, type, data, width, n, e);
	if (!r)
		return channel_stream_close(s, e);
	channel_stream_abort(s);
	return r;
}

static int send_typed(struct ctx *c, const char *role, size_t i,
		      const char *name, const char *tag, enum wire_type type,
		      const void *data, size_t width, size_t n, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(CHANNEL_MESSAGE_MAX);
	struct channel_peer to;
	int r;

	r = ctx_peer(c, role, i, &to, e);
	if (r < 0)
		return r;
	if (width && n > PACKED_MAX / width) {
		r = send_large(c, to, name, *tag ? tag : "-", type, data, width,
			       n, e);
		return r < 0 ? ctx_msg_failed(c, r, name, e) : 0;
	}
	r = wire_pack(&sb, type, data, width, n);
	if (r < 0)
		return err_set(e, -r, "message %s cannot be packed", name);
	r = channel_send(c->channel, to, name, *tag ? tag : "-", sb.buf, sb.len,
			 e);
	return r < 0 ? ctx_msg_failed(c, r, name, e) : 0;
}

static int recv_raw(struct ctx *c, const char *role, size_t i, const char *name,
		    const char *tag, size_t width, size_t max, void **ret,
		    size_t *ret_n, struct err *e)
{
	struct channel_peer from;
	size_t bytes;
	int r;

	r = ctx_peer(c, role, i, &from, e);
	if (r < 0)
		return r;
	if (__builtin_mul_overflow(width, max, &bytes) ||
	    bytes > CHANNEL_MESSAGE_MAX - WIRE_HEAD)
		bytes = CHANNEL_MESSAGE_MAX - WIRE_HEAD;
	r = channel_recv(c->channel, from, name, *tag ? tag : "-",
			 bytes + WIRE_HEAD, ret, ret_n, e);
	return r < 0 ? ctx_msg_failed(c, r, name, e) : 0;
}

// The items are moved to the front, one byte of room behind them.
static int recv_typed(struct ctx *c, const char *role, size_t i,
		      const char *name, const char *tag, enum wire_type type,
		      size_t width, size_t max, void **ret, size_t *ret_n,
		      struct err *e)
{
	_cleanup_free_ void *msg = NULL;
	const uint8_t *p;
	size_t len;
	int r;

	r = recv_raw(c, role, i, name, tag, width, max, &msg, &len, e);
	if (r < 0)
		return r;
	r = wire_open(msg, len, type, width, max, &p, ret_n, e);
	if (r < 0)
		return ctx_msg_failed(c, r, name, e);
	memmove(msg, p, width * *ret_n);
	*ret = TAKE_PTR(msg);
	return 0;
}

int ctx_send_bytes(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, const void *data, size_t n, struct err *e)
{
	return send_typed(c, role, i, name, tag, WIRE_BYTES, data, 1, n, e);
}

int ctx_recv_bytes(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, size_t max, void **ret, size_t *ret_n,
		   struct err *e)
{
	return recv_typed(c, role, i, name, tag, WIRE_BYTES, 1, max, ret, ret_n,
			  e);
}

int ctx_send_json(struct ctx *c, const char *role, size_t i, const char *name,
		  const char *tag, const json_t *v, struct err *e)
{
	_cleanup_free_ char *text = json_text(v, false);

	if (!text)
		return err_set(e, ENOMEM, "message %s: no memory", name);
	return send_typed(c, role, i, name, tag, WIRE_JSON, text, 1,
			  strlen(text), e);
}

int ctx_recv_json(struct ctx *c, const char *role, size_t i, const char *name,
		  const char *tag, json_t **ret, struct err *e)
{
	_cleanup_free_ void *text = NULL;
	size_t n;
	int r;

	r = recv_typed(c, role, i, name, tag, WIRE_JSON, 1, JSON_MAX, &text, &n,
		       e);
	if (r < 0)
		return r;
	*ret = json_parse(text, n, e);
	if (*ret)
		return 0;
	e->no = EPROTO;
	return ctx_msg_failed(c, -EPROTO, name, e);
}

int ctx_send_f64(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, const double *v, size_t n, struct err *e)
{
	return send_typed(c, role, i, name, tag, WIRE_F64, v, 8, n, e);
}

int ctx_recv_f64(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, double *v, size_t n, struct err *e)
{
	_cleanup_free_ void *msg = NULL;
	size_t len;
	int r;

	r = recv_raw(c, role, i, name, tag, 8, n, &msg, &len, e);
	if (r < 0)
		return r;
	r = wire_get_f64(msg, len, v, n, e);
	return r < 0 ? ctx_msg_failed(c, r, name, e) : 0;
}

int ctx_send_u32(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, const uint32_t *v, size_t n, struct err *e)
{
	return send_typed(c, role, i, name, tag, WIRE_U32, v, 4, n, e);
}

int ctx_recv_u32(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, size_t max, uint32_t **ret, size_t *ret_n,
		 struct err *e)
{
	void *data;
	int r;

	r = recv_typed(c, role, i, name, tag, WIRE_U32, 4, max, &data, ret_n,
		       e);
	if (r < 0)
		return r;
	*ret = data;
	for (size_t k = 0; k < *ret_n; k++)
		(*ret)[k] = wire_u32((const uint8_t *)data + 4 * k);
	return 0;
}

int ctx_send_fixed(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, const void *data, size_t width, size_t n,
		   struct err *e)
{
	return send_typed(c, role, i, name, tag, WIRE_FIXED, data, width, n, e);
}

int ctx_recv_fixed(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, size_t width, size_t max, uint8_t **ret,
		   size_t *ret_n, struct err *e)
{
	void *data;
	int r;

	r = recv_typed(c, role, i, name, tag, WIRE_FIXED, width, max, &data,
		       ret_n, e);
	if (r < 0)
		return r;
	*ret = data;
	return 0;
}
