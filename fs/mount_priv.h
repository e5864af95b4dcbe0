/* SPDX-License-Identifier: Apache-2.0 */
/* What the requests share: mount.c (files and names), mount_dir.c (listings),
 * mount_xattr.c. */
#ifndef FS_MOUNT_PRIV_H
#define FS_MOUNT_PRIV_H

#include "fs/fs.h"

/* What open or opendir made. */
void *fh_of(const struct fuse_file_info *fi);
struct who who_of(fuse_req_t r);
/* Counts a lookup where nodes are counted: forget_node() takes it back. */
int find_entry(const struct who *w, fuse_ino_t dir, const char *name,
	       struct attr *a);
void forget_node(struct nid n, uint64_t count);
void entry_of(const struct attr *a, struct fuse_entry_param *ret);

void op_opendir(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t r, fuse_ino_t ino, size_t n, off_t off,
		struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t r, fuse_ino_t ino, size_t n, off_t off,
		    struct fuse_file_info *fi);
void op_releasedir(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi);

void op_getxattr(fuse_req_t r, fuse_ino_t ino, const char *name, size_t n);
void op_listxattr(fuse_req_t r, fuse_ino_t ino, size_t n);
void op_setxattr(fuse_req_t r, fuse_ino_t ino, const char *name,
		 const char *value, size_t n, int flags);
void op_removexattr(fuse_req_t r, fuse_ino_t ino, const char *name);

#endif
