// SPDX-License-Identifier: Apache-2.0
/*
 * What kill -9 leaves: a process changes names of tables and dies before one of
 * the system calls that change files, each of them in turn.  After the sweep
 * the store is as it was or as it was to be, and nothing else is there.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/store_dir.h"

#include <linux/ptrace.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STEP 4 /* slow, and who dies has nothing to report */
#else
#define STEP 1
#endif
#define BEFORE "empty n n/old=3 n/other=4 "

/* ---- the process that dies ----------------------------------------------- */

static struct table_store *mine;
static const char *mine_dir;

static int publish(const char *ns, const char *name, unsigned rows)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	int r = table_build_begin(mine, s, &b, NULL);

	for (unsigned i = 0; i < rows && !r; i++) {
		const char key[2] = { (char)('a' + i), '\0' };

		r = table_build_add(b, key, 1, NULL, NULL);
	}
	schema_free(s);
	return r ? r : table_build_publish(b, ns, name, NULL);
}

static int prepare(void)
{
	struct table_attrs a = {
		.mode = 0700, .data_mode = -1, .uid = -1, .gid = -1
	};
	struct table_id id = { 0 };
	uint64_t empty;
	int r = publish("n", "old", 3);

	if (!r)
		r = publish("n", "other", 4);
	if (!r)
		r = table_lookup(mine, "n", "old", &id, NULL);
	if (!r)
		r = table_attrs_store(mine, id.id, &a, NULL);
	if (!r)
		r = namespace_create(mine, "empty", &empty, NULL);
	return r ? r : table_attrs_store(mine, empty, &a, NULL);
}

/* The disk damages a name; it is put aside, and then removed. */
static int mend(void)
{
	_cleanup_free_ char *name = xasprintf("%s/names/n/old", mine_dir);
	int r = file_replace(name, "?", 1, 0600, true, NULL);

	if (!r)
		r = table_store_sweep(mine, NULL, NULL);
	if (!r)
		r = table_drop(mine, "n", "old", NULL);
	return r ? r : table_store_sweep(mine, NULL, NULL);
}

static int change(const char *what)
{
	struct table *t = NULL;
	struct table_id id;
	uint64_t ns;
	int r;

	if (!strcmp(what, "create"))
		return table_create_empty(mine, "new", "t", &id, NULL);
	if (!strcmp(what, "publish"))
		return publish("n", "old", 5);
	if (!strcmp(what, "publish-first"))
		return publish("new", "t", 5);
	if (!strcmp(what, "drop"))
		return table_drop(mine, "n", "old", NULL);
	if (!strcmp(what, "truncate"))
		return table_truncate(mine, "n", "old", NULL, NULL);
	if (!strcmp(what, "rename"))
		return table_rename(mine, "n", "other", "n", "old", NULL);
	if (!strcmp(what, "rename-away"))
		return table_rename(mine, "n", "other", "new", "t", NULL);
	if (!strcmp(what, "namespace"))
		return namespace_create(mine, "new", &ns, NULL);
	if (!strcmp(what, "rmdir"))
		return namespace_remove(mine, "empty", NULL);
	if (!strcmp(what, "move"))
		return namespace_move(mine, "n", "empty", NULL);
	if (!strcmp(what, "mend"))
		return mend();
	r = table_open(mine, "n", "other", &t, NULL);
	return r ? r : table_link(t, "n", "old", NULL);
}

static int die(const char *where, const char *what)
{
	mine_dir = where;
	if (table_store_open(where, &mine, NULL))
		return 1;
	if (!strcmp(what, "prepare"))
		return prepare() ? 2 : 0;
	(void)raise(SIGUSR1); /* from here on */
	return change(what) ? 3 : 0;
}

/* ---- and its murderer ---------------------------------------------------- */

static bool changes_files(const struct ptrace_syscall_info *i)
{
	static const int calls[] = {
#ifdef SYS_rename
		SYS_rename,   SYS_unlink,    SYS_rmdir,	   SYS_mkdir,
		SYS_link,
#endif
		SYS_renameat, SYS_renameat2, SYS_unlinkat, SYS_mkdirat,
		SYS_linkat,   SYS_write,     SYS_pwrite64, SYS_ftruncate,
	};

	if (i->op != PTRACE_SYSCALL_INFO_ENTRY)
		return false;
	if (i->entry.nr == SYS_openat)
		return i->entry.args[2] & O_CREAT;
	for (size_t k = 0; k < ARRAY_SIZE(calls); k++)
		if (i->entry.nr == (unsigned)calls[k])
			return true;
	return false;
}

/* Before the call numbered n of these; else all are counted into *ret. */
static bool dies(const char *where, const char *what, unsigned n, unsigned *ret)
{
	struct ptrace_syscall_info info;
	bool counting = false;
	pid_t pid = fork();
	unsigned calls = 0;
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		/* Which traces, too. */
		(void)setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execl("/proc/self/exe", "dies", where, what, NULL);
		_exit(3);
	}
	for (;;) {
		int sig;

		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (WIFEXITED(status)) {
			assert_int_equal(WEXITSTATUS(status), 0);
			*ret = calls;
			return false;
		}
		assert_true(WIFSTOPPED(status));
		sig = WSTOPSIG(status);
		if (sig == SIGUSR1) {
			counting = true;
			ptrace(PTRACE_SETOPTIONS, pid, NULL,
			       PTRACE_O_TRACESYSGOOD);
		} else if (sig == (SIGTRAP | 0x80)) {
			assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, pid,
					   sizeof(info), &info) > 0);
			if (changes_files(&info) && calls++ == n)
				break;
		}
		sig = sig == SIGUSR1 || (sig & 0x7f) == SIGTRAP ? 0 : sig;
		ptrace(counting ? PTRACE_SYSCALL : PTRACE_CONT, pid, NULL, sig);
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return true;
}

/* ---- what is left -------------------------------------------------------- */

/* Entries of a directory without the dots. */
static size_t count(const char *format, ...)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[400];
	struct dirent *de;
	size_t n = 0;
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(path, sizeof(path), format, ap);
	va_end(ap);
	d = opendir(path);
	if (!d)
		fail_msg("%s: %s", path, strerror(errno));
	while (d && (de = readdir(d)))
		n += de->d_name[0] != '.';
	return n;
}

struct seen {
	struct table_store *s;
	const char *where, *ns;
	struct strbuf text; /* "ns/name=rows " */
	uint64_t gens[8];
	size_t n_gens, n_seqs, n_refs, n_attrs;
};

static void see_attrs(struct seen *x, uint64_t id)
{
	struct table_attrs a;

	assert_int_equal(table_attrs_load(x->s, id, &a, NULL), 0);
	x->n_attrs += !table_attrs_unset(&a);
	table_attrs_free(&a);
}

static int see_table(void *arg, const char *name)
{
	struct seen *x = arg;
	struct strbuf text = STRBUF_INIT(1000);
	struct table *t = NULL;
	struct table_id id;
	bool known = false;
	char buf[100];

	assert_int_equal(table_lookup(x->s, x->ns, name, &id, NULL), 0);
	see_attrs(x, id.id);
	sb_addf(&x->text, "%s/%s", x->ns, name);
	if (!id.gen) {
		sb_adds(&x->text, "=- ");
		return 0;
	}
	assert_int_equal(table_open(x->s, x->ns, name, &t, NULL), 0);
	if (table_rows(t) == 5) /* made by the one who died */
		assert_int_equal(table_csv_read(t, 0, buf, sizeof(buf), NULL),
				 table_csv_size(t));
	assert_int_equal(table_csv_size(t), 3 + 2 * table_rows(t));
	sb_addf(&x->text, "=%u ", (unsigned)table_rows(t));
	table_unref(t);
	for (size_t i = 0; i < x->n_gens; i++)
		known |= x->gens[i] == id.gen;
	if (!known) {
		x->gens[x->n_gens++] = id.gen;
		x->n_refs += count("%s/data/%llu/%llu/refs", x->where,
				   (unsigned long long)id.made_by,
				   (unsigned long long)id.gen);
	}
	(void)snprintf(buf, sizeof(buf), "/refs/%llu",
		       (unsigned long long)id.id);
	sb_addf(&text, "%s/data/%llu/%llu%s", x->where,
		(unsigned long long)id.made_by, (unsigned long long)id.gen,
		buf);
	assert_int_equal(access(text.buf, F_OK), 0);
	sb_free(&text);
	x->n_refs--; /* this one */
	return 0;
}

static int see_namespace(void *arg, const char *ns)
{
	struct seen *x = arg;
	uint64_t id;

	if (namespace_id(x->s, ns, &id))
		fail_msg("the namespace %s has no number", ns);
	see_attrs(x, id);
	x->ns = ns;
	sb_addf(&x->text, "%s ", ns);
	return table_list(x->s, ns, see_table, x, NULL);
}

static size_t generations(const char *where)
{
	_cleanup_free_ char *path = xasprintf("%s/data", where);
	_cleanup_closedir_ DIR *d = opendir(path);
	struct dirent *de;
	size_t n = 0;

	while (d && (de = readdir(d))) {
		size_t some;

		if (de->d_name[0] == '.')
			continue;
		some = count("%s/%s", path, de->d_name);
		assert_true(some > 0); /* else the directory would be gone */
		n += some;
	}
	return n;
}

/* All of it into ret; what is there and no name needs fails the test, but for
 * the rows and attributes of one that was damaged. */
static void look(const char *where, struct strbuf *ret)
{
	struct seen x = { .where = where, .text = STRBUF_INIT(1000) };
	size_t damaged;

	assert_int_equal(table_store_open(where, &x.s, NULL), 0);
	assert_int_equal(table_store_sweep(x.s, NULL, NULL), 0);
	assert_int_equal(table_list(x.s, NULL, see_namespace, &x, NULL), 0);
	table_store_close(x.s);
	assert_int_equal(count("%s/building", where), 0);
	damaged = count("%s/damaged", where);
	assert_int_equal(generations(where), x.n_gens + damaged);
	assert_int_equal(x.n_refs, 0);
	assert_int_equal(count("%s/attrs", where), x.n_attrs + damaged);
	sb_reset(ret);
	sb_adds(ret, x.text.buf);
	sb_free(&x.text);
}

static char template[220];

static int setup_template(void **state)
{
	unsigned calls;

	if (setup(state))
		return -1;
	(void)snprintf(template, sizeof(template), "%s/template", dir);
	return dies(template, "prepare", UINT_MAX, &calls) ? -1 : 0;
}

static void copy_tree(const char *from, const char *to)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		execlp("cp", "cp", "-a", from, to, NULL);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* One death, or none; is what was left new? */
static bool dies_once(const char *what, unsigned n, const char *between,
		      const char *after, unsigned *ret)
{
	_cleanup_free_ char *where = xasprintf("%s/%s", dir, what);
	struct strbuf now = STRBUF_INIT(1000);
	bool died;

	copy_tree(template, where);
	died = dies(where, what, n, ret);
	look(where, &now);
	if (!died ||
	    (strcmp(now.buf, BEFORE) != 0 && strcmp(now.buf, between) != 0))
		assert_string_equal(now.buf, after);
	assert_int_equal(remove_tree(where, NULL), 0);
	sb_free(&now);
	return died;
}

/*
 * Each death leaves what was before, or what is after, or between the two where
 * they are two steps that can be seen: the namespace is there and the table is
 * not yet.  Of the many calls that write rows some are enough.
 */
static void dies_everywhere(const char *what, const char *between,
			    const char *after)
{
	unsigned calls = 0, other = 0;

	assert_false(dies_once(what, UINT_MAX, between, after, &calls));
	assert_true(calls > 1);
	for (unsigned n = 0; n < calls; n += n + 40 < calls ? 11 : STEP)
		(void)dies_once(what, n, between, after, &other);
}

static void of_one_who_makes_a_namespace(void **state)
{
	(void)state;
	dies_everywhere("namespace", BEFORE, "empty n n/old=3 n/other=4 new ");
}

static void of_one_who_removes_a_namespace(void **state)
{
	(void)state;
	dies_everywhere("rmdir", BEFORE, "n n/old=3 n/other=4 ");
}

static void of_one_who_publishes(void **state)
{
	(void)state;
	dies_everywhere("publish", BEFORE, "empty n n/old=5 n/other=4 ");
}

static void of_one_who_drops(void **state)
{
	(void)state;
	dies_everywhere("drop", BEFORE, "empty n n/other=4 ");
	dies_everywhere("truncate", BEFORE, "empty n n/old=- n/other=4 ");
}

static void of_one_who_renames(void **state)
{
	(void)state;
	dies_everywhere("rename", BEFORE, "empty n n/old=4 ");
}

static void of_one_who_links(void **state)
{
	(void)state;
	dies_everywhere("link", BEFORE, "empty n n/old=4 n/other=4 ");
}

static void of_one_who_puts_a_damaged_name_aside(void **state)
{
	(void)state;
	dies_everywhere("mend", "empty n n/old=- n/other=4 ",
			"empty n n/other=4 ");
}

static void of_one_who_needs_a_namespace_first(void **state)
{
	(void)state;
	dies_everywhere("create", "empty n n/old=3 n/other=4 new ",
			"empty n n/old=3 n/other=4 new new/t=- ");
	dies_everywhere("publish-first", "empty n n/old=3 n/other=4 new ",
			"empty n n/old=3 n/other=4 new new/t=5 ");
	dies_everywhere("rename-away", "empty n n/old=3 n/other=4 new ",
			"empty n n/old=3 new new/t=4 ");
	dies_everywhere("move", "n n/old=3 n/other=4 ",
			"empty empty/old=3 empty/other=4 ");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(of_one_who_makes_a_namespace),
		cmocka_unit_test(of_one_who_removes_a_namespace),
		cmocka_unit_test(of_one_who_publishes),
		cmocka_unit_test(of_one_who_drops),
		cmocka_unit_test(of_one_who_renames),
		cmocka_unit_test(of_one_who_links),
		cmocka_unit_test(of_one_who_puts_a_damaged_name_aside),
		cmocka_unit_test(of_one_who_needs_a_namespace_first),
	};

	if (argc == 3)
		return die(argv[1], argv[2]);
	return cmocka_run_group_tests_name("deaths", tests, setup_template,
					   teardown);
}
