/* SPDX-License-Identifier: GPL-2.0 */
/*
 * BCC's headers choose helper signatures by version; ours probe the running
 * kernel instead, so one fixed recent value serves every kernel.
 */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 10, 0)
