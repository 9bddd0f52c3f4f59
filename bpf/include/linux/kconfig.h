/* SPDX-License-Identifier: GPL-2.0 */
/* BCC force-includes this one. */
#define CONFIG_BPF_SYSCALL 1
#define CONFIG_ARCH_HAS_SYSCALL_WRAPPER 1
