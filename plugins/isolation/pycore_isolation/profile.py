"""The default system-call profile: what a program may call, group by group, each with its reason.

An allow list. A call that no group names is unknown to the profile and ends with ENOSYS, so that a C
library that tries a newer call falls back to an older one, as it would on an older kernel; a call that
is refused on purpose ends with EPERM. Names are the kernel's, of all architectures: one that this
architecture or this libseccomp does not have is passed over.

Compared with Docker's profile the same programs run, with less of the kernel in reach: no vmsplice, no
personality of old systems, no io_uring, and no address families but the five that programs in containers use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

LOW_WORD = 0xFFFFFFFF
"""The kernel looks at the low 32 bits of an ``int``; so must a condition, or high bits get past it."""


@dataclass(frozen=True)
class Condition:
    """An argument, with some of its bits, has this value."""

    argument: int
    value: int
    bits: int = LOW_WORD


@dataclass(frozen=True)
class Allow:
    """Calls that are allowed: always, or where a condition holds, or to a holder of one of some capabilities."""

    why: str
    calls: str
    when: Condition | None = None
    capabilities: tuple[str, ...] = ()
    refused: bool = True
    """Whether they end with EPERM for who holds none of the capabilities; else as if not named."""


@dataclass(frozen=True)
class Refuse:
    """Calls that end with EPERM, always or where a condition holds, unless another group allows them."""

    why: str
    calls: str
    when: Condition | None = None
    refused: ClassVar[bool] = True


Rule = Allow | Refuse

NAMESPACE_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (linux/sched.h)."""

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX and PER_LINUX32, each also with UNAME26; and the question which one it is (personality(2))."""

FAMILIES = (1, 2, 10, 16, 17)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET. Not AF_VSOCK, which talks to the hypervisor past every
network namespace, nor AF_ALG and the seldom used ones, which are code of the kernel that anybody could load."""

RULES: tuple[Rule, ...] = (
    Allow(
        "Open, read, write and close files",
        "close close_range copy_file_range creat dup dup2 dup3 fadvise64 fadvise64_64 arm_fadvise64_64 fallocate "
        "fcntl fcntl64 fdatasync flock fsync ftruncate ftruncate64 ioctl _llseek lseek open openat openat2 pipe "
        "pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice "
        "sync sync_file_range sync_file_range2 arm_sync_file_range syncfs tee truncate truncate64 write writev",
    ),
    Allow(
        "Look at files, directories and mounts, name them, own them: what the file system itself allows or not",
        "access chdir chmod chown chown32 faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown fchown32 "
        "fchownat fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat "
        "getcwd getdents getdents64 getxattr getxattrat lchown lchown32 lgetxattr link linkat listmount listxattr "
        "listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at "
        "newfstatat readlink readlinkat removexattr removexattrat rename renameat renameat2 rmdir setxattr "
        "setxattrat stat stat64 statfs statfs64 statmount statx symlink symlinkat umask unlink unlinkat utime "
        "utimensat utimensat_time64 utimes",
    ),
    Allow(
        "Wait for many things at once, and hear of changes",
        "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old "
        "eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect "
        "poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4",
    ),
    Allow(
        "The older asynchronous input and output; io_uring is another matter, see below",
        "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit",
    ),
    Allow(
        "Memory",
        "brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall "
        "mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect "
        "process_mrelease remap_file_pages",
    ),
    Allow(
        "Start programs, wait for them, end",
        "execve execveat exit exit_group fork pidfd_open pidfd_send_signal vfork wait4 waitid waitpid",
    ),
    Allow(
        "Threads and the locks between them",
        "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area "
        "restart_syscall rseq set_robust_list set_thread_area set_tid_address set_tls",
    ),
    Allow(
        "Signals",
        "kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
        "rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill",
    ),
    Allow(
        "Time and timers; setting the clock is refused for want of a capability",
        "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
        "clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time "
        "timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 "
        "timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times",
    ),
    Allow(
        "Who one is, and becoming somebody else, which the capabilities decide",
        "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp "
        "getpid getppid getresgid getresgid32 getresuid getresuid32 getsid gettid getuid getuid32 setfsgid "
        "setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setregid setregid32 setresgid "
        "setresgid32 setresuid setresuid32 setreuid setreuid32 setsid setuid setuid32",
    ),
    Allow("Randomness", "getrandom"),
    Allow(
        "Scheduling and limits of one's own processes",
        "getcpu getpriority getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max "
        "sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler "
        "sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam "
        "sched_setscheduler sched_yield setpriority setrlimit sysinfo ugetrlimit uname",
    ),
    Allow(
        "Sockets, once there is one. 32-bit x86 has these behind socketcall, for which libseccomp adds the rules",
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg "
        "recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair",
    ),
    *(Allow("Sockets of the usual address families", "socket", Condition(0, family)) for family in FAMILIES),
    Allow(
        "Messages, semaphores and shared memory of the container's IPC namespace; on 32-bit x86 behind ipc, as above",
        "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 "
        "mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt "
        "shmget",
    ),
    Allow(
        "Give up powers: sandboxes inside the sandbox",
        "landlock_add_rule landlock_create_ruleset landlock_restrict_self prctl seccomp",
    ),
    Allow(
        "Debug and look into one's own processes; since Linux 4.8 a tracer cannot get a call past the filter",
        "process_vm_readv process_vm_writev ptrace",
    ),
    Allow(
        "What an architecture asks of its programs",
        "arch_prctl breakpoint cacheflush modify_ldt riscv_flush_icache riscv_hwprobe swapcontext uretprobe",
    ),
    *(Allow("Personalities that change no security", "personality", Condition(0, value)) for value in PERSONALITIES),
    Allow(
        "Clone without new namespaces",
        "clone",
        Condition(0, 0, sum(NAMESPACE_FLAGS)),
    ),
    *(
        Refuse("A new user namespace makes anybody root over much of the kernel", "clone", Condition(0, flag, flag))
        for flag in NAMESPACE_FLAGS
    ),
    Allow(
        "The same for who may administer. Without that clone3 ends with ENOSYS and C libraries fall back to clone: "
        "its flags are in memory, where no filter can look",
        "clone clone3",
        capabilities=("SYS_ADMIN",),
        refused=False,
    ),
    Allow(
        "Namespaces, mounts and what else asks for the administrator",
        "fanotify_init fsconfig fsmount fsopen fspick lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount "
        "mount_setattr move_mount open_tree open_tree_attr quotactl quotactl_fd setdomainname sethostname setns "
        "umount umount2 unshare",
        capabilities=("SYS_ADMIN",),
    ),
    Allow("Programs in the kernel", "bpf", capabilities=("SYS_ADMIN", "BPF")),
    Allow("Performance counters, of other processes too", "perf_event_open", capabilities=("SYS_ADMIN", "PERFMON")),
    Allow("The kernel's log", "syslog", capabilities=("SYS_ADMIN", "SYSLOG")),
    Allow("Files by handle, past every directory above them", "open_by_handle_at", capabilities=("DAC_READ_SEARCH",)),
    Allow("Restart of the machine", "reboot", capabilities=("SYS_BOOT",)),
    Allow("Another root directory", "chroot", capabilities=("SYS_CHROOT",)),
    Allow("Code for the kernel", "delete_module finit_module init_module", capabilities=("SYS_MODULE",)),
    Allow("Process accounting", "acct", capabilities=("SYS_PACCT",)),
    Allow("Other processes' descriptors and memory", "kcmp pidfd_getfd process_madvise", capabilities=("SYS_PTRACE",)),
    Allow("Input and output ports", "ioperm iopl", capabilities=("SYS_RAWIO",)),
    Allow("The clock", "clock_settime clock_settime64 settimeofday stime", capabilities=("SYS_TIME",)),
    Allow("Hang up a terminal", "vhangup", capabilities=("SYS_TTY_CONFIG",)),
    Allow(
        "Memory of one's own choice on machines with several nodes",
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        capabilities=("SYS_NICE",),
    ),
    Refuse("The kernel's keys know no namespaces", "add_key keyctl request_key"),
    Refuse(
        "A second way to most other calls, past this filter, and the source of many holes: refused by name, so that "
        "programs use what they did before it",
        "io_uring_enter io_uring_register io_uring_setup",
    ),
    Refuse("Another kernel in this one's place", "kexec_file_load kexec_load"),
    Refuse("Another root for every process of the namespace; chroot serves", "pivot_root"),
    Refuse("Moving other processes' memory between nodes", "migrate_pages move_pages"),
    Refuse("Swap belongs to the machine", "swapoff swapon"),
    Refuse("Page faults in a program's hand make races in the kernel winnable", "userfaultfd"),
    Refuse("Splicing memory into pipes: hardly used, often broken", "vmsplice"),
    Refuse("Profiling of the whole machine, gone since Linux 6.6", "lookup_dcookie"),
    Refuse(
        "Long out of use, or never in: only an attacker has a reason to try them",
        "_sysctl afs_syscall bdflush create_module get_kernel_syms getpmsg idle nfsservctl putpmsg query_module "
        "sysfs tuxcall uselib ustat vm86 vm86old vserver",
    ),
)
