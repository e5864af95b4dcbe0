// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/fileio.h"

static char dir[] = "/tmp/rollfs-test-file-XXXXXX";
static char path[100];

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/f", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return remove_tree(dir, NULL);
}

static void replace_leaves_no_temporary_file(void **state)
{
	struct strbuf sb = STRBUF_INIT(100);
	DIR *d = opendir(dir);
	int n = 0;

	(void)state;
	assert_int_equal(file_replace(path, "one", 3, 0600, true, NULL), 0);
	assert_int_equal(file_replace(path, "two", 3, 0600, false, NULL), 0);
	assert_int_equal(file_read(path, &sb, NULL), 0);
	assert_string_equal(sb.buf, "two");
	while (readdir(d))
		n++;
	closedir(d);
	assert_int_equal(n, 3);
	sb_free(&sb);
}

/* A file of that many days, half a day past it. */
static void aged(const char *name, int days)
{
	_cleanup_free_ char *at = xasprintf("%s/expire/%s", dir, name);
	struct timespec when[2] = { 0 };

	when[0].tv_sec = when[1].tv_sec = time(NULL) - days * 86400 - 43200;
	assert_int_equal(file_replace(at, "x", 1, 0600, false, NULL), 0);
	assert_int_equal(utimensat(AT_FDCWD, at, when, 0), 0);
}

static bool kept(const char *name)
{
	_cleanup_free_ char *at = xasprintf("%s/expire/%s", dir, name);

	return access(at, F_OK) == 0;
}

static void old_files_and_the_oldest_of_too_many_go(void **state)
{
	_cleanup_free_ char *at = xasprintf("%s/expire", dir);
	_cleanup_free_ char *sub = xasprintf("%s/expire/sub", dir);
	static const char *const names[] = { "a", "b", "c", "d", "e" };

	(void)state;
	dir_expire(at, 1, 1); /* is not there */
	assert_int_equal(mkdir_p(sub, 0700, NULL), 0);
	for (int i = 0; i < 5; i++)
		aged(names[i], i);
	dir_expire(at, 4, 10);
	assert_true(kept("d") && !kept("e") && kept("sub"));
	dir_expire(at, 4, 2);
	assert_true(kept("a") && kept("b") && !kept("c") && !kept("d"));
	dir_expire(at, 4, 2);
	assert_true(kept("a") && kept("b"));
}

static void read_is_bounded(void **state)
{
	struct strbuf sb = STRBUF_INIT(2);
	struct err e = { 0 };

	(void)state;
	assert_int_equal(file_replace(path, "abc", 3, 0600, false, NULL), 0);
	assert_int_equal(file_read(path, &sb, &e), -EFBIG);
	sb_free(&sb);
}

static void remove_tree_does_not_follow_links(void **state)
{
	char inner[200], link_path[220];

	(void)state;
	assert_int_equal(file_replace(path, "x", 1, 0600, false, NULL), 0);
	(void)snprintf(inner, sizeof(inner), "%s/t/a/b", dir);
	assert_int_equal(mkdir_p(inner, 0700, NULL), 0);
	(void)snprintf(link_path, sizeof(link_path), "%s/l", inner);
	assert_int_equal(symlink(path, link_path), 0);
	(void)snprintf(inner, sizeof(inner), "%s/t", dir);
	assert_int_equal(remove_tree(inner, NULL), 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(access(inner, F_OK), -1);
	assert_int_equal(remove_tree(inner, NULL), 0);
}

static void a_second_lock_is_refused(void **state)
{
	int a = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int b = open(path, O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(lock_try(a), 0);
	assert_int_equal(lock_try(b), -EAGAIN);
	close(a);
	assert_int_equal(lock_try(b), 0);
	close(b);
}

static void a_frame_carries_a_descriptor(void **state)
{
	struct strbuf head = STRBUF_INIT(FRAME_HEAD_MAX);
	struct strbuf body = STRBUF_INIT(FRAME_BODY_MAX);
	int s[2], got = -1;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	assert_int_equal(frame_send(s[0], "{}", 2, "body", 4, s[0]), 0);
	assert_int_equal(frame_recv(s[1], &head, &body, &got), 0);
	assert_string_equal(head.buf, "{}");
	assert_string_equal(body.buf, "body");
	assert_true(got >= 0);
	close(got);
	assert_int_equal(
	    frame_send(s[0], NULL, FRAME_HEAD_MAX + 1, NULL, 0, -1), -EMSGSIZE);
	assert_int_equal(write_all(s[0], "\xff\xff\xff\xff\0\0\0\0", 8), 0);
	assert_int_equal(frame_recv(s[1], &head, &body, &got), -EPROTO);
	close(s[0]);
	assert_int_equal(frame_recv(s[1], &head, &body, &got), -EPIPE);
	close(s[1]);
	sb_free(&head);
	sb_free(&body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(replace_leaves_no_temporary_file),
		cmocka_unit_test(read_is_bounded),
		cmocka_unit_test(old_files_and_the_oldest_of_too_many_go),
		cmocka_unit_test(remove_tree_does_not_follow_links),
		cmocka_unit_test(a_second_lock_is_refused),
		cmocka_unit_test(a_frame_carries_a_descriptor),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
