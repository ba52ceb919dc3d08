/* The parts of bpftoken-launch. */
#pragma once

#include <stdbool.h>

/* Tells bpftoken that `operation` failed with errno, and exits. */
_Noreturn void die(const char *operation);
_Noreturn void refuse(const char *operation, int error);

/* terminal.c */
bool has_terminal(void);
void keep_from_typing(void);

/*
 * program.c: becomes the program, or gives an errno: ENOENT where there is none, as env(1) has it.
 */
int execute(char **argv, char **environment);
