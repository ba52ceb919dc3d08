/*
 * What libbpf says of BPF objects: reads their paths, one a line, and answers each with one line of
 * JSON.
 *
 *   oracle [--time] open|relocate|load [BTF]
 *
 * open      only what the file says: programs and maps relocate  also the instructions of each
 * program after bpf_object__prepare, with CO-RE against BTF, or that of
 *           the running kernel: all programs are asked for, and struct_ops are left out, so that a kernel
 *           without such a struct still has the rest relocated. Needs root.
 * load      also whether bpf_object__load works, with a bpffs of its own for each object, and then
 *           the tag that the kernel gave each program. Needs root.
 * --time    an answer is only how many nanoseconds of processor it took, or -errno.
 *
 * `error` is the first failure's errno, or 0; `stage` is how far it came: open, externs, core,
 * relocate (where references are filled in), prepare, load. What libbpf printed is on stderr.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>

enum mode { OPEN, RELOCATE, LOAD };

/* Where the failure was, as libbpf's first warning says. */
static const char *failed_in;

static void print_string(const char *text)
{
	putchar('"');
	for (const unsigned char *c = (const unsigned char *)(text ? text : ""); *c; c++) {
		if (*c == '"' || *c == '\\' || *c < 0x20)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

static void print_map(struct bpf_map *map)
{
	struct bpf_map *inner = bpf_map__inner_map(map);

	printf("{\"name\":");
	print_string(bpf_map__name(map));
	printf(",\"type\":%d,\"keyBytes\":%u,\"valueBytes\":%u,\"maxEntries\":%u,\"flags\":%u,\"extra\":\"%llu\","
	       "\"numaNode\":%u,\"pinned\":%s,\"autocreate\":%s,\"internal\":%s,\"inner\":",
	       bpf_map__type(map), bpf_map__key_size(map), bpf_map__value_size(map), bpf_map__max_entries(map),
	       bpf_map__map_flags(map), (unsigned long long)bpf_map__map_extra(map), bpf_map__numa_node(map),
	       bpf_map__pin_path(map) ? "true" : "false", bpf_map__autocreate(map) ? "true" : "false",
	       bpf_map__is_internal(map) ? "true" : "false");
	if (inner)
		print_map(inner);
	else
		printf("null");
	putchar('}');
}

/* The kernel's digest of the instructions; nothing where the program was not loaded. */
static void print_tag(const struct bpf_program *program)
{
	struct bpf_prog_info info = {};
	__u32 length = sizeof(info);

	if (bpf_program__fd(program) < 0 || bpf_prog_get_info_by_fd(bpf_program__fd(program), &info, &length))
		return;
	printf(",\"tag\":\"");
	for (size_t i = 0; i < sizeof(info.tag); i++)
		printf("%02x", info.tag[i]);
	putchar('"');
}

static void print_program(struct bpf_program *program, bool autoload, bool with_code)
{
	printf("{\"name\":");
	print_string(bpf_program__name(program));
	printf(",\"section\":");
	print_string(bpf_program__section_name(program));
	printf(",\"type\":%d,\"attachType\":%d,\"autoload\":%s", bpf_program__type(program),
	       bpf_program__expected_attach_type(program), autoload ? "true" : "false");
	if (with_code) {
		const unsigned char *bytes = (const unsigned char *)bpf_program__insns(program);
		size_t size = bpf_program__insn_cnt(program) * sizeof(struct bpf_insn);

		printf(",\"code\":\"");
		for (size_t i = 0; i < size; i++)
			printf("%02x", bytes[i]);
		putchar('"');
	}
	print_tag(program);
	putchar('}');
}

static void ask_for_all(struct bpf_object *object)
{
	struct bpf_program *program;
	struct bpf_map *map;

	bpf_object__for_each_program(program, object)
		bpf_program__set_autoload(program, true);
	bpf_object__for_each_map(map, object)
		if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
			bpf_map__set_autocreate(map, false);
}


static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int work(struct bpf_object *object, enum mode mode)
{
	if (mode == OPEN)
		return 0;
	if (mode == LOAD)
		return bpf_object__load(object);
	ask_for_all(object);
	return bpf_object__prepare(object);
}

/* Pins by name go to a bpffs that exists only as long as one object. */
static void fresh_bpffs(enum mode mode)
{
	static bool mounted;

	if (mode == OPEN)
		return;
	if (mounted)
		umount2("/sys/fs/bpf", MNT_DETACH);
	mounted = mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) == 0;
}

/*
 * Symbols that this kernel may lack and the corpus wants: with them libbpf goes on to relocate.
 * Their addresses are not looked at.
 */
static int add_symbols(void)
{
	static const char symbols[] = "ffffffff81000008 D init_net\nffffffff81000010 D bpf_prog_fops\n";
	FILE *from, *to;
	int c;

	if (mount("tmpfs", "/mnt", "tmpfs", 0, NULL))
		return -1;
	from = fopen("/proc/kallsyms", "r");
	to = fopen("/mnt/kallsyms", "w");
	if (!from || !to)
		return -1;
	fputs(symbols, to);
	while ((c = getc(from)) != EOF)
		putc(c, to);
	fclose(from);
	if (fclose(to) || mount("/mnt/kallsyms", "/proc/kallsyms", NULL, MS_BIND, NULL))
		return -1;
	return 0;
}

static void time_it(const char *path, enum mode mode, const struct bpf_object_open_opts *opts)
{
	long long start = now_ns();
	struct bpf_object *object = bpf_object__open_file(path, opts);
	int error = object ? work(object, mode) : -errno;

	bpf_object__close(object);
	printf("%lld\n", error ? (long long)error : now_ns() - start);
}

/*
 * What the file says is printed as it was before the work, which changes it: autoload, sizes,
 * flags.
 */
static void answer(const char *path, enum mode mode, const struct bpf_object_open_opts *opts)
{
	struct bpf_object *object = bpf_object__open_file(path, opts);
	int error = object ? 0 : -errno;
	static const char *const stages[] = { "open", "prepare", "load" };
	bool first = true, *autoload = NULL;
	size_t count = 0;
	struct bpf_program *program;
	struct bpf_map *map;

	printf("{\"path\":");
	print_string(path);
	if (!object) {
		printf(",\"stage\":\"open\",\"error\":%d}\n", -error);
		return;
	}
	printf(",\"maps\":[");
	bpf_object__for_each_map(map, object) {
		if (!first)
			putchar(',');
		first = false;
		print_map(map);
	}
	bpf_object__for_each_program(program, object)
		count++;
	autoload = calloc(count + 1, sizeof(*autoload));
	count = 0;
	bpf_object__for_each_program(program, object)
		autoload[count++] = bpf_program__autoload(program);
	failed_in = NULL;
	error = work(object, mode);
	printf("],\"programs\":[");
	count = 0;
	bpf_object__for_each_program(program, object) {
		if (count > 0)
			putchar(',');
		print_program(program, autoload[count++], mode == RELOCATE);
	}
	free(autoload);
	printf("],\"stage\":\"%s\",\"error\":%d}\n", error && failed_in ? failed_in : stages[mode], -error);
	bpf_object__close(object);
}

static int print_warnings(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level == LIBBPF_WARN && !failed_in) {
		if (strstr(format, "extern"))
			failed_in = "externs";
		else if (strstr(format, "CO-RE"))
			failed_in = "core";
		else if (strstr(format, "failed to relocate"))
			failed_in = "relocate";
	}
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

static int print_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level, (void)format, (void)args;
	return 0;
}

int main(int argc, char **argv)
{
	bool timed = argc > 1 && strcmp(argv[1], "--time") == 0;
	const char *name = argv[1 + timed] ? argv[1 + timed] : "";
	enum mode mode = strcmp(name, "load") == 0 ? LOAD : strcmp(name, "relocate") == 0 ? RELOCATE : OPEN;
	LIBBPF_OPTS(bpf_object_open_opts, opts);
	char *path = NULL;
	size_t size = 0;

	if (mode == OPEN && strcmp(name, "open") != 0) {
		fprintf(stderr, "usage: oracle [--time] open|relocate|load [BTF]\n");
		return 2;
	}
	opts.btf_custom_path = argv[1 + timed] ? argv[2 + timed] : NULL;
	libbpf_set_print(timed ? print_nothing : print_warnings);
	if (mode != OPEN && (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))) {
		perror("oracle: cannot make a mount namespace");
		return 1;
	}
	if (mode == RELOCATE && !timed && add_symbols()) {
		perror("oracle: cannot add symbols");
		return 1;
	}
	while (getline(&path, &size, stdin) > 0) {
		path[strcspn(path, "\n")] = '\0';
		fresh_bpffs(mode);
		if (!timed)
			fprintf(stderr, "## %s\n", path);
		if (timed)
			time_it(path, mode, &opts);
		else
			answer(path, mode, &opts);
		fflush(stdout);
	}
	free(path);
	return 0;
}
