/* SPDX-License-Identifier: GPL-2.0 */
#ifndef STUB_LINUX_BPF_COMMON_H
#define STUB_LINUX_BPF_COMMON_H

#define BPF_CLASS(code)	((code) & 0x07)
#define BPF_SIZE(code)	((code) & 0x18)
#define BPF_OP(code)	((code) & 0xf0)
#define BPF_MAXINSNS	4096

#endif
