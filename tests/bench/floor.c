/*
 * The floor under `make bench`: the system calls of pycore's default container, from C.
 *
 * What pycore costs above this is Python and pycore; what is here is the kernel's. For each line on stdin it makes
 * one container whole (layer, cgroups, namespaces, root, /proc, /sys, /dev, masked paths, capabilities, filter, exec
 * of /bin/true), waits for it, removes it, and answers with a line.
 *
 *     floor IMAGE DIRECTORY [FILTER]
 *
 * IMAGE is the lower layer, DIRECTORY where upper ones go (not on an overlay); FILTER is a compiled seccomp program
 * (struct sock_filter).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARRAY(...) ((const char *const[]){__VA_ARGS__, NULL})
#define CHECK(call) check((long)(call), #call)

static const char *image, *directory;
static struct sock_fprog filter;

static long check(long result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
	return result;
}

/* Its arguments joined; good for the next seven calls. */
#define path(...) join(__VA_ARGS__, (char *)NULL)
static const char *join(const char *part, ...)
{
	static char buffers[8][4096];
	static unsigned next;
	char *buffer = buffers[next++ % 8], *end = buffer;
	va_list parts;

	va_start(parts, part);
	for (; part; part = va_arg(parts, const char *))
		end = stpcpy(end, part);
	va_end(parts);
	return buffer;
}

static void write_file(const char *name, const char *text)
{
	int fd = CHECK(open(name, O_WRONLY | O_CLOEXEC));

	CHECK(write(fd, text, strlen(text)));
	close(fd);
}

/* -- the host's side: prepare and take away --------------------------------------------------------------------- */

static const char *const *cgroups(void)
{
	static const char *found[8];
	unsigned count = 0;

	if (access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0)
		found[count++] = "/sys/fs/cgroup/pycore-floor";
	else
		for (const char *const *name = ARRAY("cpu", "memory", "pids"); *name; name++)
			found[count++] = strdup(path("/sys/fs/cgroup/", *name, "/pycore-floor"));
	found[count] = NULL;
	return found;
}

static void prepare(const char *const *groups)
{
	CHECK(mkdir(path(directory, "/layer"), 0755));
	for (const char *const *name = ARRAY("/layer/upper", "/layer/work", "/layer/names"); *name; name++)
		CHECK(mkdir(path(directory, *name), 0755));
	for (const char *const *name = ARRAY("/hosts", "/hostname", "/resolv.conf"); *name; name++) {
		int fd = CHECK(open(path(directory, "/layer/names", *name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));

		CHECK(write(fd, "127.0.0.1 localhost\n", 20));
		close(fd);
	}
	for (; *groups; groups++) {
		CHECK(mkdir(*groups, 0755));
		if (access(path(*groups, "/pids.max"), F_OK) == 0)
			write_file(path(*groups, "/pids.max"), "4096");
	}
}

static int remove_one(const char *name, const struct stat *found, int kind, struct FTW *where)
{
	(void)found, (void)kind, (void)where;
	return remove(name);
}

static void take_away(const char *const *groups)
{
	for (; *groups; groups++)
		CHECK(rmdir(*groups));
	CHECK(nftw(path(directory, "/layer"), remove_one, 8, FTW_DEPTH | FTW_PHYS));
}

/* -- inside: enter ---------------------------------------------------------------------------------------------- */

static int new_mount(const char *type, const char *const *options, unsigned attributes)
{
	int context = CHECK(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));

	for (; *options; options += 2)
		CHECK(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[0], options[1], 0));
	CHECK(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	int tree = CHECK(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes));
	close(context);
	return tree;
}

static void place(int tree, const char *target)
{
	CHECK(syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH));
	close(tree);
}

static void fresh(const char *type, const char *target, const char *const *options, unsigned attributes)
{
	place(new_mount(type, options, attributes), target);
}

/* A detached mount of what is at `source`, with attributes. */
static int copy(const char *source, uint64_t attributes)
{
	int tree = CHECK(syscall(SYS_open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
	struct mount_attr wanted = {.attr_set = attributes};

	if (attributes)
		CHECK(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &wanted, sizeof wanted));
	return tree;
}

static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"};
static const char *const names[] = {"/hosts", "/hostname", "/resolv.conf"};
#define COUNT(array) (sizeof(array) / sizeof *(array))
static int held_devices[COUNT(devices)], held_names[COUNT(names)];

/* What the host has and the container gets, taken hold of while the host's root is in sight. */
static void hold(void)
{
	const unsigned locked = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;

	for (unsigned i = 0; i < COUNT(devices); i++)
		held_devices[i] = copy(devices[i], locked);
	for (unsigned i = 0; i < COUNT(names); i++)
		held_names[i] = copy(path(directory, "/layer/names", names[i]), locked | MOUNT_ATTR_NODEV);
}

static void change_root(void)
{
	const char *upper = path(directory, "/layer/upper"), *work = path(directory, "/layer/work");
	int tree = new_mount("overlay", ARRAY("lowerdir", image, "upperdir", upper, "workdir", work), MOUNT_ATTR_NODEV);

	CHECK(syscall(SYS_move_mount, tree, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK(fchdir(tree));
	CHECK(syscall(SYS_pivot_root, ".", "."));
	CHECK(umount2(".", MNT_DETACH));
	CHECK(chdir("/"));
	close(tree);
}

static void kernel_file_systems(void)
{
	static const char *const links[][2] = {
		{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"}, {"pts/ptmx", "/dev/ptmx"}, {"/proc/kcore", "/dev/core"},
	};
	const unsigned inert = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

	fresh("proc", "/proc", ARRAY(NULL), inert);
	fresh("sysfs", "/sys", ARRAY(NULL), inert | MOUNT_ATTR_RDONLY);
	fresh("tmpfs", "/dev", ARRAY("mode", "755", "size", "64k"), inert);
	for (const char *const *name = ARRAY("/dev/pts", "/dev/shm", "/dev/mqueue"); *name; name++)
		CHECK(mkdir(*name, 0755));
	fresh("devpts", "/dev/pts", ARRAY("ptmxmode", "0666", "mode", "0620", "gid", "5"), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	fresh("tmpfs", "/dev/shm", ARRAY("mode", "1777", "size", "64m"), inert);
	fresh("mqueue", "/dev/mqueue", ARRAY(NULL), inert);
	for (unsigned i = 0; i < COUNT(devices); i++) {
		close(CHECK(open(devices[i], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)));
		place(held_devices[i], devices[i]);
	}
	for (unsigned i = 0; i < COUNT(links); i++)
		CHECK(symlink(links[i][0], links[i][1]));
	for (unsigned i = 0; i < COUNT(names); i++)
		place(held_names[i], path("/etc", names[i]));
}

static void conceal(void)
{
	const unsigned locked = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	const char *masked = NULL;
	struct stat found;

	for (const char *const *name = ARRAY("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
	         "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
	         "/sys/devices/virtual/powercap", "/sys/firmware"); *name; name++) {
		if (stat(*name, &found) < 0)
			continue;
		if (!S_ISDIR(found.st_mode))
			place(copy("/dev/null", 0), *name);
		else if (masked)
			place(copy(masked, 0), *name);
		else
			fresh("tmpfs", masked = *name, ARRAY(NULL), locked);
	}
	for (const char *const *name = ARRAY("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"); *name; name++)
		if (access(*name, F_OK) == 0)
			place(copy(*name, locked), *name);
}

/* -- inside: confine -------------------------------------------------------------------------------------------- */

static void drop_capabilities(void)
{
	/* Docker's default set, by number (capability.h). */
	const uint64_t kept = 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID
		| 1ull << CAP_KILL | 1ull << CAP_SETGID | 1ull << CAP_SETUID | 1ull << CAP_SETPCAP
		| 1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_NET_RAW | 1ull << CAP_SYS_CHROOT | 1ull << CAP_MKNOD
		| 1ull << CAP_AUDIT_WRITE | 1ull << CAP_SETFCAP;
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{kept, kept, 0}, {kept >> 32, kept >> 32, 0}};

	for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
		if (!(kept >> capability & 1))
			prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
	CHECK(syscall(SYS_capset, &header, data));
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
}

static void loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = CHECK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));

	CHECK(ioctl(fd, SIOCSIFFLAGS, &request));
	close(fd);
}

static void become_the_program(const char *const *groups)
{
	CHECK(setsid());
	CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	for (; *groups; groups++)
		write_file(path(*groups, "/cgroup.procs"), "0");
	CHECK(unshare(CLONE_NEWCGROUP));
	hold();
	change_root();
	kernel_file_systems();
	conceal();
	CHECK(sethostname("floor", 5));
	loopback_up();
	CHECK(chdir("/"));
	CHECK(syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC));
	drop_capabilities();
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (filter.len)
		CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
	execl("/bin/true", "true", (char *)NULL);
	_exit(127);
}

/* -- the turns -------------------------------------------------------------------------------------------------- */

static void one_container(const char *const *groups)
{
	int pidfd = -1, status = -1, word[2];
	char byte;
	struct clone_args how = {
		.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_PIDFD,
		.pidfd = (uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
	};

	prepare(groups);
	CHECK(pipe2(word, O_CLOEXEC));
	pid_t pid = CHECK(syscall(SYS_clone3, &how, sizeof how));
	if (pid == 0)
		become_the_program(groups);
	close(word[1]);
	CHECK(read(word[0], &byte, 1)); /* end of file: the program runs */
	close(word[0]);
	CHECK(waitpid(pid, &status, 0));
	close(pidfd);
	take_away(groups);
	if (status != 0) {
		fprintf(stderr, "floor: the container ended with status %#x\n", status);
		_exit(1);
	}
}

static void read_filter(const char *name)
{
	static struct sock_filter program[8192];
	int fd = CHECK(open(name, O_RDONLY | O_CLOEXEC));
	ssize_t size = CHECK(read(fd, program, sizeof program));

	close(fd);
	filter.len = size / sizeof *program;
	filter.filter = program;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: floor IMAGE DIRECTORY [FILTER]\n");
		return 2;
	}
	image = argv[1];
	directory = argv[2];
	if (argc > 3)
		read_filter(argv[3]);
	const char *const *groups = cgroups();
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int character; (character = getchar()) != EOF;)
		if (character == '\n') {
			one_container(groups);
			puts("done");
		}
	return 0;
}
