// SPDX-License-Identifier: GPL-2.0
/*
 * What became of an inode that was watched, and what it is called: run by user
 * space (BPF_PROG_TEST_RUN of raw tracepoint programs, Linux 5.10).
 *
 * Its memory tells, also for a while after it was freed: a deleted inode has no
 * link, whatever filesystem it is of and wherever its path leads by now. Memory
 * that has been used again holds another number or generation.
 */

/* of the names of one inode, how many are looked at for one that is not deleted */
#define ALIASES_MAX	4

BPF_F_TABLE("array", u32, struct name_row, name_rows, NAME_ROWS, BPF_F_MMAPABLE);

static __always_inline bool is_inode(u64 inode, u64 ino, u32 generation)
{
	return inode && read_u64(inode + OFF_INODE_I_INO) == ino &&
	       read_u32(inode + OFF_INODE_I_GENERATION) == generation;
}

/* args: its address, i_ino and i_generation */
int inode_state(struct bpf_raw_tracepoint_args *ctx)
{
	u64 inode = ctx->args[0];

	if (!is_inode(inode, ctx->args[1], ctx->args[2]))
		return INODE_UNKNOWN;
	return read_u32(inode + OFF_INODE_I_NLINK) ? INODE_LINKED : INODE_DELETED;
}

/* include/linux/dcache.h, d_unhashed() */
static __always_inline bool is_unhashed(u64 dentry)
{
	return !read_u64(dentry + OFF_DENTRY_D_HASH + OFF_HLIST_BL_NODE_PPREV);
}

/* a dentry of the inode, one that still leads there if there is such; 0: none in memory */
static __always_inline u64 dentry_of(u64 inode)
{
	u64 first = read_u64(inode + OFF_INODE_I_DENTRY), node = first;
	int i;

	for (i = 0; i < ALIASES_MAX && node; i++) {
		if (!is_unhashed(node - OFF_DENTRY_D_ALIAS))
			return node - OFF_DENTRY_D_ALIAS;
		node = read_u64(node);
	}
	return first ? first - OFF_DENTRY_D_ALIAS : 0;
}

static __always_inline void tell_name(struct name_row *row)
{
	u64 dentry = row->dentry, inode, name;
	u32 bytes;
	long copied;

	row->parent = 0;
	row->bytes = 0;
	if (!dentry && is_inode(row->inode, row->ino, row->generation))
		dentry = dentry_of(row->inode);
	inode = dentry ? read_u64(dentry + OFF_DENTRY_D_INODE) : 0;
	if (!inode || (row->inode && inode != row->inode))
		return;
	row->dentry = dentry;
	if (read_u64(read_u64(inode + OFF_INODE_I_SB) + OFF_SUPER_BLOCK_S_ROOT) == dentry) {
		row->parent = dentry;
		return;
	}
	/* deleted: what has the name by now is something else. The root is never hashed. */
	if (is_unhashed(dentry))
		return;
	bytes = read_u32(dentry + OFF_DENTRY_D_NAME + OFF_QSTR_LEN);
	name = read_u64(dentry + OFF_DENTRY_D_NAME + OFF_QSTR_NAME);
	copied = bpf_probe_read_kernel_str(row->name, sizeof(row->name), (void *)name);
	/* else it is renamed just now, or the memory is in use for something else */
	if (copied > 1 && bytes == copied - 1) {
		row->bytes = bytes;
		row->parent = read_u64(dentry + OFF_DENTRY_D_PARENT);
	}
}

/* args: how many of the name_rows ask */
int dentry_names(struct bpf_raw_tracepoint_args *ctx)
{
	u32 asked = ctx->args[0], i;

	for (i = 0; i < NAME_ROWS; i++) {
		u32 slot = i;
		struct name_row *row = name_rows.lookup(&slot);

		if (!row || i >= asked)
			break;
		tell_name(row);
	}
	return 0;
}
