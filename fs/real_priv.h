/* SPDX-License-Identifier: Apache-2.0 */
/* Files kept on disk: what real.c (names) and real_write.c (open files) share.
 * The table of nodes and its lock are real.c's. */
#ifndef FS_REAL_PRIV_H
#define FS_REAL_PRIV_H

#include "fs/fs.h"

struct node;

/* A node with one more opening, made when it is not known; NULL: no memory, or
 * (by number) no such node. */
struct node *real_node_open(struct real_at at);
struct node *real_node_open_number(uint64_t number);
void real_node_close(struct node *n);
/* Whose attributes it has when it has lost its name: the descriptor is copied.
 */
void real_node_fd(struct node *n, int fd);
uint64_t real_node_number(const struct node *n);
/* Of a node, mostly: its writers hand over one after the other, and its name
 * does not change meanwhile. */
pthread_mutex_t *real_turn(uint64_t number);
/* A number that grows with every change of the node's content. */
uint64_t real_node_turn(struct node *n);
/* What was changed at this turn (0 = now) is handed over; false when something
 * changed later was already. */
bool real_node_turn_taken(struct node *n, uint64_t turn);
/* Where the bytes of a file that is being written are; was = what the same
 * writer said before (NULL: nothing).  Another writer's is left alone by
 * spool = NULL. */
void real_node_pending(struct node *n, const char *spool, const char *was);
/* The deadline that the file got while it was pending, once; 0 = none. */
int64_t real_node_deadline(struct node *n);
/* rollsite was told of the pending spool file. */
void real_node_told(struct node *n);
/* Who writes in place: begins (-EBUSY while the file is being handed over),
 * ends. */
int real_node_write_begin(struct node *n);
void real_node_write_end(struct node *n);
/* Who looks the name up from now on gets another node for the same file. */
void real_node_aside(struct real_at at);

/* Fills ret and counts a lookup of the node. */
int real_known(struct real_at at, struct attr *ret);
bool real_path_ok(const char *path);
/* Any part of the path is a name that is never final. */
bool real_path_temporary(const char *path);
char *real_party(struct real_at at);
/* A new name in the spool of the party; its directory exists. */
char *real_spool(struct real_at at);
int real_parents(const char *path);
/* real_xattr.c: those of an open file to another; as far as it goes. */
void real_user_copy(int in, int out);
/* Who made the file or folder on disk, for what stat shows; and the mode that
 * chmod gave it, which is kept of what lies beside a table only.  A disk
 * without attributes shows the owner of the mount and the usual mode. */
void real_made_by(const char *disk, uid_t uid);
/* disk NULL: fd */
void real_owner_attr(const char *disk, int fd, struct attr *a);
/* The bytes, the time and the attributes of an open file into a new one,
 * durable. */
int real_copy(int in, const char *to);
/* The same by name. */
int real_copy_path(const char *from, const char *to);
/* The spool file is rollsite's from now on. A refusal goes to /errors. */
int real_hand_over(uid_t uid, struct real_at at, const char *spool);

/* ---- pull.c ------------------------------------------------------------- */
/* Where the file of a name below pull/ will be; NULL: no file can be. */
char *pull_disk(uint64_t party, const char *path);
int pull_attr(struct attr *a, uint64_t number, struct real_at at,
	      const char *disk);
int pull_lookup(struct real_at at, struct attr *ret);
int pull_list(struct real_at dir, struct listing *l);
int pull_open(const struct who *w, struct nid n, struct real_at at, int flags,
	      struct handle **ret);

#endif
