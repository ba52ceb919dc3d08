/*
 * Loads an object by the libbpf that is named, as a program does that was built with it, and waits:
 * libbpf-loader LIBRARY OBJECT.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	void *library = argc == 3 ? dlopen(argv[1], RTLD_NOW) : 0;
	void *(*open)(const char *);
	int (*load)(void *);
	void *object;
	char line[16];

	if (!library) {
		fprintf(stderr, "%s\n", argc == 3 ? dlerror() : "libbpf-loader LIBRARY OBJECT");
		return 2;
	}
	*(void **)&open = dlsym(library, "bpf_object__open");
	*(void **)&load = dlsym(library, "bpf_object__load");
	if (!open || !load)
		return 2;
	object = open(argv[2]);
	printf("%s\ndone\n", object && !load(object) ? "loaded" : "not loaded");
	fflush(stdout);
	return fgets(line, sizeof(line), stdin) ? 0 : 1;
}
