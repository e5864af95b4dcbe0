// SPDX-License-Identifier: Apache-2.0
/* Journals of messages: what is read back, also after a death. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "transfer/transfer_priv.h"

static char dir[] = "/tmp/rollfs-unit-XXXXXX";
static char path[100];

struct seen {
	unsigned messages, marks;
	char names[200]; /* of the messages, in their order */
};

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/log", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return remove_tree(dir, NULL);
}

static void on_record(void *arg, const struct message_head *h, const char *tid,
		      const char *data)
{
	struct seen *s = arg;
	size_t n = strlen(s->names);

	assert_true(hex64_valid(tid));
	if (!h) {
		s->marks++;
		return;
	}
	s->messages++;
	assert_string_equal(h->tid, tid);
	assert_int_equal(data[0], h->key.f[KEY_NAME][0]);
	(void)snprintf(s->names + n, sizeof(s->names) - n, "%s",
		       h->key.f[KEY_NAME]);
}

static struct message_head message(const char *name, char payload[3000])
{
	struct message_head h = { .key = { .f = { "1_a_0", "", "", "guest",
						  "9999", "host", "10000" } },
				  .size = 3000 };

	(void)snprintf(h.key.f[KEY_NAME], KEY_FIELD_MAX, "%s", name);
	memset(payload, name[0], 3000);
	key_digest(&h.key, payload, 3000, h.sha256);
	key_tid(&h.key, h.tid);
	return h;
}

static void add(struct journal *j, const char *name)
{
	char payload[3000];
	struct message_head h = message(name, payload);

	assert_int_equal(journal_add(j, &h, payload), 0);
}

static struct journal *reopen(struct journal *j, struct seen *ret)
{
	*ret = (struct seen){ 0 };
	journal_unref(j);
	assert_int_equal(journal_open(path, on_record, ret, &j, NULL), 0);
	return j;
}

static off_t file_size(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* a is taken, b is wanted, c is of a session that has ended. */
static enum journal_keep by_name(void *arg, const char *tid)
{
	const char(*tids)[65] = arg;

	return !strcmp(tid, tids[0])   ? JOURNAL_HEAD
	       : !strcmp(tid, tids[1]) ? JOURNAL_WHOLE
				       : JOURNAL_DROP;
}

struct heads {
	char *with, *without; /* names of those with a payload, or none */
	char marked[65];      /* the last one */
};

static void on_kept(void *arg, const struct message_head *h, const char *tid,
		    const char *data)
{
	struct heads *x = arg;

	if (!h)
		(void)snprintf(x->marked, sizeof(x->marked), "%s", tid);
	else
		*(data ? x->with++ : x->without++) = h->key.f[KEY_NAME][0];
}

static void a_rewritten_journal_has_what_is_wanted(void **state)
{
	char payload[3000], tids[2][65];
	char with[10] = "", without[10] = "";
	struct heads x = { .with = with, .without = without };
	struct seen s;
	struct journal *j = reopen(NULL, &s);
	uint64_t len;

	(void)state;
	for (int i = 0; i < 2; i++)
		memcpy(tids[i], message(i ? "b" : "a", payload).tid, 65);
	for (const char *p = "a\0b\0c\0"; *p; p += 2)
		add(j, p);
	assert_int_equal(journal_mark(j, tids[0]), 0);
	len = journal_len(j);
	assert_int_equal(journal_rewrite(j, path, by_name, tids, NULL), 0);
	/* Positions go on, and what was written is on the disk. */
	assert_true(journal_len(j) == len);
	assert_int_equal(journal_sync(j, len), 0);
	assert_true(journal_bytes(j) == (uint64_t)file_size());
	assert_in_range(file_size(), 3000, 5000);
	add(j, "d");
	assert_int_equal(journal_sync(j, journal_len(j)), 0);
	journal_unref(j);
	assert_int_equal(journal_open(path, on_kept, &x, &j, NULL), 0);
	assert_string_equal(with, "bd");
	assert_string_equal(without, "a");
	assert_string_equal(x.marked, tids[0]);
	/* Once more: a head stays a head. */
	assert_int_equal(journal_rewrite(j, path, by_name, tids, NULL), 0);
	journal_unref(j);
	assert_int_equal(journal_open(path, on_kept, &x, &j, NULL), 0);
	assert_string_equal(with, "bdb");
	assert_string_equal(without, "aa");
	journal_clear(j);
	journal_unref(j);
}

static void a_journal_that_cannot_be_rewritten_stays(void **state)
{
	char tids[2][65] = { "", "" }, elsewhere[100];
	struct seen s;
	struct journal *j = reopen(NULL, &s);

	(void)state;
	add(j, "a");
	(void)snprintf(elsewhere, sizeof(elsewhere), "%s/none/log", dir);
	assert_int_equal(journal_rewrite(j, elsewhere, by_name, tids, NULL),
			 -ENOENT);
	add(j, "b");
	j = reopen(j, &s);
	assert_string_equal(s.names, "ab");
	journal_clear(j);
	journal_unref(j);
}

static void records_are_read_back(void **state)
{
	struct message_head h;
	char payload[3000];
	struct seen s;
	struct journal *j = reopen(NULL, &s);
	uint64_t len;

	(void)state;
	add(j, "a");
	add(j, "b");
	h = message("a", payload);
	assert_int_equal(journal_mark(j, h.tid), 0);
	add(j, "c");
	len = journal_len(j);
	assert_int_equal(journal_sync(j, len), 0);
	/* What is written ahead is no record. */
	assert_true((uint64_t)file_size() > len);
	j = reopen(j, &s);
	assert_string_equal(s.names, "abc");
	assert_int_equal(s.marks, 1);
	assert_true(journal_len(j) == len);
	add(j, "d");
	j = reopen(j, &s);
	assert_string_equal(s.names, "abcd");
	journal_clear(j);
	assert_int_equal(file_size(), 0);
	journal_unref(j);
}

static void a_record_that_came_in_part_is_left_out(void **state)
{
	static const char zeros[500];
	struct seen s;
	struct journal *j = reopen(NULL, &s);
	uint64_t b;
	int fd;

	(void)state;
	add(j, "a");
	add(j, "b");
	b = journal_len(j);
	add(j, "c");
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite_all(fd, zeros, sizeof(zeros), b - 1000), 0);
	j = reopen(j, &s);
	assert_string_equal(s.names, "ac");
	/* Its head: nothing after it can be told apart any more. */
	assert_int_equal(pwrite_all(fd, zeros, sizeof(zeros), b / 2), 0);
	j = reopen(j, &s);
	assert_string_equal(s.names, "a");
	assert_true(journal_len(j) == b / 2);
	add(j, "e");
	j = reopen(j, &s);
	assert_string_equal(s.names, "ae");
	journal_clear(j);
	journal_unref(j);
	close(fd);
}

static void space_is_used_again(void **state)
{
	struct seen s;
	struct journal *j = reopen(NULL, &s);
	off_t size;

	(void)state;
	for (int i = 0; i < 100; i++)
		add(j, "a");
	size = file_size();
	journal_again(j);
	assert_int_equal(journal_bytes(j), 0);
	assert_int_equal(file_size(), size);
	add(j, "b");
	assert_int_equal(journal_sync(j, journal_len(j)), 0);
	assert_int_equal(file_size(), size);
	j = reopen(j, &s);
	assert_string_equal(s.names, "b");
	journal_clear(j);
	journal_unref(j);
}

static void many_marks_do_not_wait_for_a_message(void **state)
{
	struct message_head h;
	char payload[3000];
	struct seen s;
	struct journal *j = reopen(NULL, &s);
	unsigned marks;

	(void)state;
	h = message("a", payload);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(journal_mark(j, h.tid), 0);
	j = reopen(j, &s);
	assert_true(s.marks > 700 && s.marks < 1000);
	assert_int_equal(journal_mark(j, h.tid), 0);
	assert_int_equal(journal_raw(j, "", 0), 0);
	marks = s.marks;
	j = reopen(j, &s);
	assert_int_equal(s.marks, marks + 1);
	journal_unref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_are_read_back),
		cmocka_unit_test(a_rewritten_journal_has_what_is_wanted),
		cmocka_unit_test(a_journal_that_cannot_be_rewritten_stays),
		cmocka_unit_test(a_record_that_came_in_part_is_left_out),
		cmocka_unit_test(space_is_used_again),
		cmocka_unit_test(many_marks_do_not_wait_for_a_message),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
