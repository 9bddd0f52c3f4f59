// SPDX-License-Identifier: GPL-2.0
/*
 * What became of an inode that was watched, run by user space for one inode at
 * a time (BPF_PROG_TEST_RUN of a raw tracepoint program, Linux 5.10).
 *
 * Its memory tells, also for a while after it was freed: a deleted inode has no
 * link, whatever filesystem it is of and wherever its path leads by now. Memory
 * that has been used again holds another number or generation.
 */

/* args: its address, i_ino and i_generation */
int inode_state(struct bpf_raw_tracepoint_args *ctx)
{
	u64 inode = ctx->args[0];

	if (!inode || read_u64(inode + OFF_INODE_I_INO) != ctx->args[1] ||
	    read_u32(inode + OFF_INODE_I_GENERATION) != (u32)ctx->args[2])
		return INODE_UNKNOWN;
	return read_u32(inode + OFF_INODE_I_NLINK) ? INODE_LINKED : INODE_DELETED;
}
